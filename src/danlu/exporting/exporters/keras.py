"""A Keras 3 file, which runs on its TensorFlow, JAX and PyTorch backends: linear, mlp, cnn, rnn.

model.keras is a functional model of Keras' own layers, without a Lambda, and can be trained on
there. It takes prepared inputs under danlu's names (numbers float32, categories int32, image uint8
with the channels last, tokens int32, series float32) and gives finished answers: probabilities, or
numbers in units of the data. The scale of pixels stands inside; columns are prepared as export.json
says. Its outputs are proven equal on the torch backend, and on TensorFlow and JAX where they are
installed, each in a process of its own. Where they live in other environments,
DANLU_TENSORFLOW_PYTHON and DANLU_JAX_PYTHON name the interpreters."""

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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import ArtifactError, PartError
from danlu.reading import keras_file
from danlu.recipe import Options

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import Program

NEEDS = ("keras, h5py", "keras")
TORCH_FREE = False
FILE = "model.keras"
FAMILIES = ("linear", "mlp", "cnn", "rnn")
TASKS = ("classification", "multi_label", "regression")
BACKENDS = {"tensorflow": "DANLU_TENSORFLOW_PYTHON", "jax": "DANLU_JAX_PYTHON"}

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], dict[str, np.ndarray]]


class Config(Options):
    """It has no options."""


def fits(config: Config, artifact: Artifact) -> str:
    """Why an artifact has no form in Keras; "" where it has."""
    model, task = artifact.recipe.model.name, artifact.recipe.task.name
    if model not in FAMILIES:
        return f"its model is {model}, and Keras' layers hold {', '.join(FAMILIES)}."
    if task not in TASKS:
        return f"its task is {task}, and a Keras file answers {', '.join(TASKS)}."
    if artifact.recipe.data.test_time_augmentation:
        return "data.test_time_augmentation asks the network several times, and a Keras file once."
    return ""


def export(config: Config, artifact: Artifact, program: Program, folder: Path) -> dict[str, Any]:
    """Write model.keras; gives what `start` must know."""
    from danlu.exporting.exporters._to_keras import twin

    described = artifact.described or artifact.preprocessor.inputs
    try:
        model = twin(
            artifact.module,
            {name: described[name] for name in program.inputs},
            lambda keras, x: _finished(keras, x, artifact),
        )
    except PartError as error:
        raise ArtifactError(
            f"no Keras file: {error.problem.message}", hint=error.problem.hint
        ) from None
    (output,) = program.outputs
    with _quiet():
        model.save(folder / FILE)
    said = {
        name: ", ".join(each.names[:50])
        for name, each in described.items()
        if name in program.inputs
    }
    return {"inputs": list(program.inputs), "output": output, "features": said}


def _finished(keras: Any, outputs: Any, artifact: Artifact) -> Any:
    """What the task makes of outputs, as a last layer."""
    import torch

    task = artifact.task
    if artifact.recipe.task.name == "classification":
        return keras.layers.Activation("softmax", name="answers")(outputs)
    if artifact.recipe.task.name == "multi_label":
        return keras.layers.Activation("sigmoid", name="answers")(outputs)
    ends = (
        task.to_units(torch.tensor([[0.0] * task.output.size, [1.0] * task.output.size]))
        .double()
        .numpy()
    )
    return keras.layers.Rescaling((ends[1] - ends[0]).tolist(), ends[0].tolist(), name="answers")(
        outputs
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without numpy's talk of how Keras turns its variables into arrays."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="__array__ implementation", category=DeprecationWarning
        )
        yield


def start(folder: Path, about: Mapping[str, Any]) -> Run:
    """What runs the file on Keras' torch backend."""
    import torch

    from danlu.layers.keras.network import open_network

    names, output = [str(name) for name in about["inputs"]], str(about["output"])
    try:
        network = open_network(keras_file.read_keras_file(folder / FILE), FILE)
    except PartError as error:
        raise ArtifactError(error.problem.message, where=FILE, hint=error.problem.hint) from None

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = network(
                [torch.from_numpy(np.ascontiguousarray(_given(arrays[name]))) for name in names],
                training=False,
            )
        return {output: found.numpy()}

    return run


def _given(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32) if array.dtype == np.int64 else array


def elsewhere(folder: Path, about: Mapping[str, Any]) -> dict[str, Run]:
    """The same file on each other backend that is installed: {name: run}, each in a process that
    ends with its `run`."""
    found: dict[str, Run] = {}
    for backend, variable in BACKENDS.items():
        python = os.environ.get(variable) or (
            sys.executable if importlib.util.find_spec(backend) is not None else ""
        )
        if python:
            found[backend] = _another(python, backend, folder, about)
    return found


def _another(python: str, backend: str, folder: Path, about: Mapping[str, Any]) -> Run:
    file = keras_file.read_keras_file(folder / FILE)
    keras_file.check_weights(file.weights, FILE)
    home = tempfile.TemporaryDirectory(prefix="danlu-keras-")
    place = Path(home.name)
    (place / keras_file.CONFIG).write_text(json.dumps(file.architecture), "utf-8")
    (place / keras_file.WEIGHTS).write_bytes(file.weights)
    script = Path(__file__).with_name("_keras_process.py")
    process = subprocess.Popen(
        [python, "-I", "-W", "ignore", str(script), str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(place / "said.txt").open("wb"),
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
        },
    )
    _heard(process, backend, place)
    names, output, count = (
        [str(name) for name in about["inputs"]],
        str(about["output"]),
        iter(range(1 << 62)),
    )

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        number = next(count)
        np.savez(
            place / f"{number}.npz",
            allow_pickle=False,
            **{name: _given(arrays[name]) for name in names},
        )
        assert process.stdin is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        _heard(process, backend, place)
        with np.load(place / f"{number}.out.npz", allow_pickle=False) as told:
            return {output: told["outputs"]}

    weakref.finalize(run, _ended, process, home)
    return run


def _heard(process: subprocess.Popen[str], backend: str, place: Path) -> None:
    """Wait for the process's next line. ArtifactError with its last words where it has ended."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("danlu "):
            return
    said = (place / "said.txt").read_text("utf-8", "replace").strip().splitlines()
    raise ArtifactError(
        f"Keras on {backend} ended: {said[-1][:300] if said else 'it said nothing'}.", where=FILE
    )


def _ended(process: subprocess.Popen[str], home: tempfile.TemporaryDirectory[str]) -> None:
    process.communicate()
    home.cleanup()


def card(about: Mapping[str, Any]) -> list[str]:
    """How another program runs the file."""
    lines = [
        "`model.keras` takes prepared inputs (`export.json`, `preprocessing`), in this order:",
        "",
    ]
    lines += [
        f"- `{name}`{f': {said}' if said else ''}" for name, said in about["features"].items()
    ]
    code = [
        "import keras  # KERAS_BACKEND: tensorflow, jax or torch",
        'model = keras.saving.load_model("model.keras")',
    ]
    return [*lines, "", "```python", *code, "```"]
