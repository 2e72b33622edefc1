"""An artifact as a program of torch.export, as OpenVINO's files, as plain safetensors: proven on raw rows; hostile files are refused."""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import danlu
from danlu.errors import ArtifactError, ExportError
from danlu.exporting.export import export, verify
from danlu.exporting.exporters._torch_program import plain_program
from danlu.exporting.loader import open_export, read_manifest
from danlu.system.atomic_files import sha256, with_checksum

DIGITS = {"source": {"name": "sklearn", "set": "digits"}, "target": "label"}
RECIPES: dict[str, dict[str, Any]] = {
    "cnn": {
        "task": "classification",
        "data": DIGITS,
        "model": {"name": "cnn", "width": 4, "blocks": [1]},
    },
    "mlp": {
        "task": "regression",
        "data": {"source": {"name": "sklearn", "set": "diabetes"}, "target": "target"},
        "model": {"name": "mlp", "hidden": [8], "batch_norm": True},
    },
}
TEXTS = ["a good film", "bad", "good good", "not good, bad", "so bad a film", "fine"] * 12
FORMATS = ["torch_export", "safetensors", "openvino"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANLU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> dict[str, danlu.Artifact]:
    home = tmp_path_factory.mktemp("runs")
    lines = [
        json.dumps({"text": f"{text} {number}", "label": "bad" if "bad" in text else "good"})
        for number, text in enumerate(TEXTS)
    ]
    (home / "texts.jsonl").write_text("\n".join(lines))
    reading = {"source": str(home / "texts.jsonl"), "target": "label", "checks": "off"}
    text = {
        "task": "classification",
        "data": reading,
        "model": {"name": "rnn", "width": 6, "embedding": 5, "cell": "gru"},
    }
    recipes = {**RECIPES, "rnn": text}
    return {
        name: danlu.train({"name": name, **recipe, "train": {"steps": 4}}, home / name)
        for name, recipe in recipes.items()
    }


def skip_without(to: str) -> None:
    if to == "openvino" and not all(
        importlib.util.find_spec(name) for name in ("openvino", "onnx", "onnxscript")
    ):
        pytest.skip("openvino is not installed: pip install 'danlu[openvino]'")


@pytest.mark.filterwarnings("ignore")  # of torch's and OpenVINO's converters
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["cnn", "mlp", "rnn"])
def test_an_export_answers_as_its_artifact_does(name, to, artifacts, tmp_path) -> None:
    skip_without(to)
    made = export(artifacts[name], to, tmp_path / to, least_rows=32)
    # 1e-5: float32 sums in another order; the same kernels give the same bits
    assert made.manifest["proof"]["largest_difference"] <= (1e-5 if to == "openvino" else 1e-6)
    assert verify(tmp_path / to, artifacts[name]).rows >= 10
    assert "```python" in (tmp_path / to / "MODEL_CARD.md").read_text()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("to", "file"), [("torch_export", "model.pt2"), ("safetensors", "model.safetensors")]
)
def test_stale_weights_are_not_released(to, file, artifacts, tmp_path) -> None:
    recipe = {"name": "stale", **RECIPES["cnn"], "train": {"steps": 3}}
    stale = (
        export(danlu.train(recipe, tmp_path / "other"), to, tmp_path / "stale", least_rows=32).path
        / file
    )

    def swap(folder: Path) -> None:
        (folder / file).write_bytes(stale.read_bytes())

    with pytest.raises(ExportError, match="does not answer as the artifact"):
        export(artifacts["cnn"], to, tmp_path / to, least_rows=32, changed=swap)
    assert not (tmp_path / to).exists()


def test_safetensors_are_read_without_danlu(artifacts, tmp_path) -> None:
    from safetensors.numpy import load_file

    export(artifacts["mlp"], "safetensors", tmp_path / "plain", least_rows=32)
    about = json.loads((tmp_path / "plain" / "config.json").read_text())
    weights = load_file(tmp_path / "plain" / "model.safetensors")
    assert about["model"]["name"] == "mlp" and about["inputs"]["numbers"]["shape"] == [9]
    assert {"1.weight", "2.running_mean"} <= set(weights)


# --- programs of torch --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(artifacts, tmp_path_factory) -> Path:
    return export(
        artifacts["mlp"],
        "torch_export",
        tmp_path_factory.mktemp("programs") / "plain",
        least_rows=32,
    ).path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path / "model.pt2") as archive:
        return {each.filename: archive.read(each) for each in archive.infolist()}


def test_a_program_holds_no_pickle_and_no_place_of_this_machine(program) -> None:
    for name, content in members(program).items():
        assert not content.startswith((b"PK", b"\x80\x02", b"\x80\x04")), name
        assert b"site-packages" not in content and b".py" not in content, name
    assert (
        plain_program((program / "model.pt2").read_bytes()) == (program / "model.pt2").read_bytes()
    )


def graph(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, bytes]], None]:
    def apply(files: dict[str, bytes]) -> None:
        name = next(each for each in files if each.endswith("models/model.json"))
        value = json.loads(files[name])
        change(value)
        files[name] = json.dumps(value).encode()

    return apply


def first_node(value: dict[str, Any]) -> dict[str, Any]:
    return value["graph_module"]["graph"]["nodes"][0]


def pickled(files: dict[str, bytes]) -> None:
    name = next(each for each in files if each.endswith("model_weights_config.json"))
    value = json.loads(files[name])
    next(iter(value["config"].values()))["use_pickle"] = True
    files[name] = json.dumps(value).encode()


def symbol(value: dict[str, Any]) -> None:
    tensors = value["graph_module"]["graph"]["tensor_values"]
    sizes = [size for tensor in tensors.values() for size in tensor["sizes"] if "as_expr" in size]
    sizes[0]["as_expr"]["expr_str"] = "__import__('os').system('touch /tmp/pwned')"


HOSTILE: dict[str, Callable[[dict[str, bytes]], Any]] = {
    "a weight as a pickle": pickled,
    "an object of a class": lambda files: files.update(
        {"model/data/constants/custom_obj_0": b"\x80\x02."}
    ),
    "a value as a pickle": lambda files: files.update(
        {"model/data/constants/opaque_obj_0": b"\x80\x02."}
    ),
    "compiled code": lambda files: files.update({"model/data/aotinductor/model/x.so": b"\x7fELF"}),
    "a path out": lambda files: files.update({"model/../../x": b""}),
    "an operator of Python": graph(
        lambda value: first_node(value).update(target="torch.os.system")
    ),
    "an operator of a library": graph(
        lambda value: first_node(value).update(target="torch.ops.load_library")
    ),
    "an operator of operator": graph(
        lambda value: first_node(value).update(target="_operator.methodcaller")
    ),
    "a size that is code": graph(symbol),
    "types of somebody else": graph(
        lambda value: value["graph_module"]["treespec_namedtuple_fields"].update({"x.Y": ["a"]})
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_program_with_more_than_operators_and_numbers_is_refused(what, program, tmp_path) -> None:
    files = members(program)
    HOSTILE[what](files)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError):
        plain_program(held.getvalue())
    folder = tmp_path / "hostile"
    folder.mkdir()
    for each in program.iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    (folder / "model.pt2").write_bytes(held.getvalue())
    about = read_manifest(folder)
    about["files"]["model.pt2"] = {"size": len(held.getvalue()), "sha256": sha256(held.getvalue())}
    (folder / "export.json").write_bytes(with_checksum(about))
    with pytest.raises(ArtifactError, match="no plain program"):
        open_export(folder)


def test_guards_are_code_and_are_left_out(program) -> None:
    files = members(program)
    graph(lambda value: value.update(guards_code=["__import__('os').system('true')"]))(files)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with zipfile.ZipFile(io.BytesIO(plain_program(held.getvalue()))) as archive:
        assert not any(b"__import__" in archive.read(each) for each in archive.infolist())


@pytest.mark.parametrize("how", ["entities", "operators of a library", "numbers beyond"])
def test_a_strange_graph_of_openvino_is_refused(how) -> None:
    from danlu.exporting.exporters.openvino import refuse_unsafe

    sound = b'<net><layer id="0" type="Const" version="opset1"><data offset="0" size="40"/></layer></net>'
    refuse_unsafe(sound, 40)
    changed = {
        "entities": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + sound,
        "operators of a library": sound.replace(b"opset1", b"evil"),
        "numbers beyond": sound.replace(b'"40"', b'"41"'),
    }
    with pytest.raises(ArtifactError):
        refuse_unsafe(changed[how], 40)
