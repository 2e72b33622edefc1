"""A Keras 3 file, which runs on its TensorFlow, JAX and PyTorch backends: linear, mlp, cnn, rnn.

model.keras is a functional model of Keras' own layers, without a Lambda, and can be trained further
in Keras. It takes prepared inputs under danlu's names (numbers float32, categories int32, image
uint8 with the channels last, tokens int32, series float32) and gives finished answers:
probabilities, or numbers in units of the data. The scaling of pixels is inside; columns are
prepared as export.json says. Its outputs are compared on the torch backend, and on TensorFlow and
JAX where they are installed, each in a process of its own. Where they are installed in other
environments, DANLU_TENSORFLOW_PYTHON and DANLU_JAX_PYTHON name the interpreters.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import ArtifactError, PartError
from danlu.exporting.exporters._base import Run, RunInfo
from danlu.parts.tasks._base import EndsInLayer
from danlu.reading import keras_file
from danlu.recipe import Options

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import TraceableModel

NEEDS = (("keras", "h5py"), "keras")
TORCH_FREE = False
FILE = "model.keras"
FAMILIES = ("linear", "mlp", "cnn", "rnn")
BACKENDS = {"tensorflow": "DANLU_TENSORFLOW_PYTHON", "jax": "DANLU_JAX_PYTHON"}

Arrays = Mapping[str, np.ndarray]


class Config(Options):
    """It has no options."""


def refusal(config: Config, artifact: Artifact) -> str:
    """Why an artifact has no form in Keras; "" where it has one."""
    family, task = artifact.recipe.model.name, artifact.recipe.task.name
    if family not in FAMILIES:
        return f"its model is {family}, and Keras' layers hold {', '.join(FAMILIES)}."
    if not isinstance(artifact.task, EndsInLayer):
        return f"its task is {task}, whose answers are not made by one layer of Keras."
    if artifact.recipe.data.test_time_augmentation:
        return (
            "data.test_time_augmentation runs the network several times, and a Keras file runs it "
            "once."
        )
    return ""


def export(
    config: Config, artifact: Artifact, model: TraceableModel, folder: Path
) -> dict[str, Any]:
    """Write model.keras. Raises ArtifactError for a layer that Keras lacks."""
    from danlu.exporting.exporters._to_keras import to_keras

    described = artifact.described or artifact.preprocessor.inputs
    try:
        network = to_keras(
            artifact.module,
            {name: described[name] for name in model.inputs},
            lambda keras, x: _finished(keras, x, artifact),
        )
    except PartError as error:
        raise ArtifactError(
            f"no Keras file: {error.problem.message}", hint=error.problem.hint
        ) from None
    (output,) = model.outputs
    with _quiet():
        network.save(folder / FILE)
    feature_names = {
        name: ", ".join(spec.names[:50]) for name, spec in described.items() if name in model.inputs
    }
    return {"inputs": list(model.inputs), "output": output, "features": feature_names}


def _finished(keras: Any, outputs: Any, artifact: Artifact) -> Any:
    """The task's answers of the network's outputs, as a last layer."""
    assert isinstance(artifact.task, EndsInLayer)  # else `refusal` said so
    layer = artifact.task.answer_layer()
    if layer.activation != "rescale":
        return keras.layers.Activation(layer.activation, name="answers")(outputs)
    scale, offset = list(layer.scale), list(layer.offset)
    return keras.layers.Rescaling(scale, offset, name="answers")(outputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences numpy's warning about how Keras turns its variables into arrays."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="__array__ implementation", category=DeprecationWarning
        )
        yield


def start(folder: Path, run_info: RunInfo) -> Run:
    """Opens the file on Keras' torch backend."""
    import torch

    from danlu.layers.keras.network import open_network

    names, output = [str(name) for name in run_info["inputs"]], str(run_info["output"])
    try:
        network = open_network(keras_file.read_keras_file(folder / FILE), FILE)
    except PartError as error:
        raise ArtifactError(error.problem.message, where=FILE, hint=error.problem.hint) from None

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = network(
                [
                    torch.from_numpy(np.ascontiguousarray(_keras_array(arrays[name])))
                    for name in names
                ],
                training=False,
            )
        return {output: outputs.numpy()}

    return run


def _keras_array(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32) if array.dtype == np.int64 else array


def other_runtimes(folder: Path, run_info: RunInfo) -> dict[str, Run]:
    """The same file on each other backend that is installed; each runs in a process that ends when
    its Run is released."""
    runs: dict[str, Run] = {}
    for backend, variable in BACKENDS.items():
        python = os.environ.get(variable) or (
            sys.executable if importlib.util.find_spec(backend) is not None else ""
        )
        if python:
            runs[backend] = _run_in_process(python, backend, folder, run_info)
    return runs


def _run_in_process(python: str, backend: str, folder: Path, run_info: RunInfo) -> Run:
    file = keras_file.read_keras_file(folder / FILE)
    keras_file.check_weights(file.weights, FILE)
    home = tempfile.TemporaryDirectory(prefix="danlu-keras-")
    work = Path(home.name)
    (work / keras_file.CONFIG).write_text(json.dumps(file.architecture), "utf-8")
    (work / keras_file.WEIGHTS).write_bytes(file.weights)
    script = Path(__file__).with_name("_keras_process.py")
    process = subprocess.Popen(
        [python, "-I", "-W", "ignore", str(script), str(work)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(work / "errors.txt").open("wb"),
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "KERAS_HOME": os.environ.get("KERAS_HOME", str(work)),  # it writes its settings there
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
        },
    )
    _wait_for_line(process, backend, work)
    names, output, count = (
        [str(name) for name in run_info["inputs"]],
        str(run_info["output"]),
        iter(range(1 << 62)),
    )

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        number = next(count)
        np.savez(
            work / f"{number}.npz",
            allow_pickle=False,
            **{name: _keras_array(arrays[name]) for name in names},
        )
        assert process.stdin is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        _wait_for_line(process, backend, work)
        with np.load(work / f"{number}.out.npz", allow_pickle=False) as result:
            return {output: result["outputs"]}

    weakref.finalize(run, _end_process, process, home)
    return run


def _wait_for_line(process: subprocess.Popen[str], backend: str, folder: Path) -> None:
    """Wait for the process's next line. Raises ArtifactError, with the last line of its errors,
    where the process has ended."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("danlu "):
            return
    error_lines = (folder / "errors.txt").read_text("utf-8", "replace").strip().splitlines()
    raise ArtifactError(
        f"Keras on {backend} ended: "
        f"{error_lines[-1][:300] if error_lines else 'it printed no error'}.",
        where=FILE,
    )


def _end_process(process: subprocess.Popen[str], home: tempfile.TemporaryDirectory[str]) -> None:
    process.communicate()
    home.cleanup()


def card(run_info: RunInfo) -> list[str]:
    """How another program runs the file."""
    lines = [
        "`model.keras` takes prepared inputs (`export.json`, `preprocessing`), in this order:",
        "",
    ]
    lines += [
        f"- `{name}`{f': {names}' if names else ''}" for name, names in run_info["features"].items()
    ]
    code = [
        "import keras  # KERAS_BACKEND: tensorflow, jax or torch",
        'model = keras.saving.load_model("model.keras")',
    ]
    return [*lines, "", "```python", *code, "```"]
