"""One small artifact through every exporter there is: the same answers, or a sentence that says why not; importing a part imports no library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import danlu
import make
from danlu import registry
from danlu.errors import ArtifactError, MissingExtra
from danlu.exporting.export import export
from danlu.exporting.loader import open_export


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[danlu.Artifact]:
    home = tmp_path_factory.mktemp("artifact")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANLU_CACHE", str(home / "cache"))
        recipe = make.iris(name="iris", model={"name": "mlp", "hidden": [5]}, train={"steps": 4})
        yield danlu.train(recipe, home / "run")


@pytest.mark.filterwarnings("ignore")  # of the converters
@pytest.mark.parametrize("name", registry.names("exporters"))
def test_every_exporter_gives_the_artifacts_answers_or_says_why_it_cannot(
    name: str, artifact: danlu.Artifact, tmp_path: Path
) -> None:
    rows = [
        dict(zip(artifact.inputs, values))
        for values in ([5.1, 3.5, 1.4, 0.2], [6.3, 2.8, 5.1, 1.5])
    ]
    try:
        export(artifact, name, tmp_path / name, least_rows=20)
    except (ArtifactError, MissingExtra) as error:
        assert error.problem.hint
        assert not (tmp_path / name).exists()
        return
    for one, other in zip(
        artifact.predict(rows), open_export(tmp_path / name).predict(rows), strict=True
    ):
        assert one["prediction"] == other["prediction"]
        # 1e-4: what the proof allows
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


@pytest.mark.filterwarnings("ignore")  # of the converters
@pytest.mark.parametrize("name", registry.names("exporters"))
def test_no_file_of_an_export_holds_a_path_of_this_machine(
    name: str, artifact: danlu.Artifact, tmp_path: Path
) -> None:
    try:
        export(artifact, name, tmp_path / name, least_rows=20)
    except (ArtifactError, MissingExtra):
        pytest.skip("this exporter does not export it here")
    # torch's exporter records stack traces: source files of danlu, and of torch beside it
    sources = [str(Path(module.__file__).parent) for module in (danlu, torch)]
    for path in (tmp_path / name).iterdir():
        content = path.read_bytes()
        assert not [source for source in sources if source.encode() in content], path.name


def test_importing_the_parts_imports_no_library_of_theirs() -> None:
    heavy = "torch, onnx, onnxruntime, openvino, keras, gguf, transformers, pyarrow"
    parts = ", ".join(f"danlu.exporting.exporters.{name}" for name in registry.names("exporters"))
    code = f"import sys, {parts}; print([each for each in '{heavy}'.split(', ') if each in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stdout.strip() == "[]", ended.stdout + ended.stderr


@pytest.mark.filterwarnings("ignore")  # of the converters
@pytest.mark.parametrize("name", registry.names("compressors"))
def test_a_compressed_artifact_is_exported_like_any_other(
    name: str, artifact: danlu.Artifact, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    options: dict[str, object] = (
        {"smallest": 1} if name.startswith("int") or name == "quantization_aware" else {}
    )
    options |= {"distil": {"model": {"hidden": [3]}}, "low_rank": {"rank": 0.5}}.get(name, {})
    try:
        smaller = danlu.compress(
            artifact, [{"name": name, **options}], tmp_path / "smaller", output="quiet"
        ).artifact
    except danlu.DanluError as error:  # of so small a model some have nothing to compress
        assert error.problem.hint or error.problem.message
        pytest.skip(error.problem.message)
    made = export(smaller, "onnx", tmp_path / "onnx", least_rows=20)
    in_few_bits = bool(getattr(registry.facts("compressors", name), "ROUNDS", False))
    assert (made.manifest["proof"]["accuracy"] is not None) == in_few_bits
