"""Training speed of frameworks: one MLP and one CNN in danlu (PyTorch), TensorFlow, JAX, MXNet and
Theano.

    python benchmarks/frameworks.py --setup FOLDER      make the environments in FOLDER (once; 3 GB), then measure
    python benchmarks/frameworks.py --folder FOLDER     measure with the environments in FOLDER
    python benchmarks/frameworks.py --folder FOLDER --rows 12000 --networks mlp --frameworks danlu jax

Every framework starts from danlu's weights: TensorFlow and JAX read danlu's Keras export, MXNet and
Theano read arrays. Its outputs on 256 test images are compared with danlu's first. Then it trains
one epoch with the same optimizer (gradient descent with momentum) on the same batches in the same
order, in float32 on one thread. Compilation before the first update is measured separately. The
data is Fashion-MNIST from the folder DANLU_DATA, or the digits of scikit-learn without it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measuring import Neighbours, machine, machine_line

HERE = Path(__file__).parent
DATA = Path(os.environ.get("DANLU_DATA", HERE.parents[1] / "shared" / "data"))
NETWORKS = {
    "mlp": {"name": "mlp", "hidden": [128], "dropout": 0.0},
    "cnn": {"name": "cnn", "design": "textbook", "dropout": 0.0},
}
BATCH, RATE, MOMENTUM, CHECKED = 128, 0.05, 0.9, 256
ALLOWED = 1e-4  # of outputs: float32 sums in other orders


@dataclass(frozen=True)
class Framework:
    """A framework with an environment of its own: the Pythons that its wheels are for, what is
    installed, its script and surroundings."""

    description: str
    pythons: tuple[str, ...]
    packages: tuple[str, ...]
    script: str
    environment: dict[str, str]


FRAMEWORKS = {
    "tensorflow": Framework(
        "TensorFlow, through Keras 3", ("3.11", "3.12", "3.10"), ("tensorflow-cpu==2.21.0", "keras==3.15.1"), "with_keras.py",
        {"KERAS_BACKEND": "tensorflow", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    ),
    "jax": Framework(
        "JAX, through Keras 3", ("3.11", "3.12"), ("jax==0.10.2", "keras==3.15.1"), "with_keras.py",
        {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"},
    ),
    "mxnet": Framework(
        "MXNet 1.9.1 (retired 2023)", ("3.10", "3.11"), ("mxnet==1.9.1", "numpy<1.24"), "with_mxnet.py", {"MXNET_SUBGRAPH_VERBOSE": "0"}
    ),
    "theano": Framework(
        "Theano 1.0.5 (ended 2017)", ("3.10",), ("theano==1.0.5", "numpy<1.22", "setuptools<70"), "with_theano.py",
        {"THEANO_FLAGS": "floatX=float32,openmp=False,mode=FAST_RUN"},
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument(
        "--setup",
        type=Path,
        metavar="FOLDER",
        help="make the environments in this folder, then measure",
    )
    parser.add_argument("--folder", type=Path, help="folder of the environments")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument(
        "--frameworks", nargs="+", choices=["danlu", *FRAMEWORKS], default=["danlu", *FRAMEWORKS]
    )
    parser.add_argument("--rows", type=int, help="number of training images; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    home = arguments.setup or arguments.folder or Path("environments")
    if arguments.setup:
        set_up(home, [name for name in arguments.frameworks if name in FRAMEWORKS])
    neighbours, runs = Neighbours(), []
    with tempfile.TemporaryDirectory(prefix="danlu-frameworks-") as temporary:
        for network in arguments.networks:
            folder = Path(temporary) / network
            folder.mkdir()
            ours, data_text = hand_over(network, folder, arguments.rows)
            for name in arguments.frameworks:
                _say(f"{network}: {name}")
                measured = ours if name == "danlu" else elsewhere(name, home, folder)
                runs.append({"network": network, "framework": name, **measured})
    result = {
        "data": data_text,
        "machine": machine(),
        "cores_used_by_others": neighbours.cores(),
        "runs": runs,
    }
    print(json.dumps(result, indent=1) if arguments.json else report(result))


# --- environments -------------------------------------------------------------------------------------------------------


def set_up(home: Path, names: list[str]) -> None:
    """An environment a framework, with the first Python that is here."""
    home.mkdir(parents=True, exist_ok=True)
    for name in names:
        framework = FRAMEWORKS[name]
        python = next(
            (path for version in framework.pythons if (path := find_python(version))), None
        )
        if python is None:
            _say(
                f"{name} is skipped: it needs Python {' or '.join(framework.pythons)}, and none is here"
            )
            continue
        _say(f"{name}: an environment of {python}")
        subprocess.run([python, "-m", "venv", "--clear", str(home / name)], check=True)
        subprocess.run(
            [
                str(home / name / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "-q",
                *framework.packages,
            ],
            check=True,
        )


def find_python(version: str) -> str | None:
    """An interpreter of a version: on the path, or among those of pyenv."""
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))),
    ]
    for candidate in candidates:
        if (
            candidate
            and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode
            == 0
        ):
            return candidate
    return None


# --- danlu --------------------------------------------------------------------------------------------------------------


def recipe_of(network: str) -> dict[str, Any]:
    """The recipe: the data, the network, plain descent with momentum, float32 on one thread."""
    fashion = DATA / "fashion_mnist"
    data: dict[str, Any] = {"source": {"name": "sklearn", "set": "digits"}, "target": "label"}
    if fashion.is_dir():
        data = {
            "source": {"name": "idx", "path": str(fashion)},
            "target": "label",
            "split": {"name": "random", "validation": 0.0},
        }
    return {
        "name": f"frameworks-{network}", "task": "classification", "data": data, "model": NETWORKS[network],
        "optimizer": {"name": "momentum", "learning_rate": RATE, "momentum": MOMENTUM}, "schedule": "constant",
        "train": {"epochs": 1, "batch_size": BATCH, "precision": "float32", "compile": False, "threads": 1, "least_steps": 0},
    }  # fmt: skip


def hand_over(network: str, folder: Path, most: int | None) -> tuple[dict[str, Any], str]:
    """Write what the others start from, train danlu's epoch; (what was measured, what the data
    is)."""
    import torch
    from torch import nn

    from danlu import recipe as recipes
    from danlu import registry
    from danlu.exporting.exporters._to_keras import to_keras
    from danlu.system.machine import versions
    from danlu.training.setup import build_training

    built = build_training(recipes.read(recipe_of(network), registry))
    module, data = built.state.module, built.data
    steps = (
        built.plan.steps_per_epoch
        if most is None
        else min(built.plan.steps_per_epoch, max(1, most // BATCH))
    )
    described = data.examples.input_specs
    (image,) = described
    order = torch.cat([built.batches.indices(step) for step in range(steps)]).numpy()
    pixels, labels = np.asarray(data.examples.inputs[image]), np.asarray(data.examples.target)
    tests = data.splits["test"]
    rows, inverse = np.unique(order, return_inverse=True)
    layers = [spec for spec in module.modules() if isinstance(spec, nn.Linear | nn.Conv2d)]
    weights = [tensor.detach().numpy() for layer in layers for tensor in (layer.weight, layer.bias)]
    with torch.inference_mode():
        wanted = module.eval()(
            built.rows.gather(torch.from_numpy(tests[:CHECKED].copy())).inputs
        ).numpy()
    to_keras(module, described, lambda keras, outputs: outputs).save(folder / "model.keras")
    np.savez(
        folder / "given.npz", rows=pixels[rows], labels=labels[rows], order=inverse, test_rows=pixels[tests], test_labels=labels[tests],
        wanted=wanted, **{f"weight_{number}": spec for number, spec in enumerate(weights)},
    )  # fmt: skip
    description = {
        "network": network, "batch_size": BATCH, "learning_rate": RATE, "momentum": MOMENTUM, "weights": len(weights),
        "mean": float(described[image].mean[0]), "std": float(described[image].std[0]),
    }  # fmt: skip
    (folder / "given.json").write_text(json.dumps(description))
    module.train()
    began, worked = time.perf_counter(), time.process_time()
    for step in range(steps):
        built.update(step)
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    scores = built.evaluator.score(module, "test", tests)
    run = {
        "difference": 0.0, "accuracy": scores.values["accuracy"], "seconds": seconds, "processor": processor, "warm": 0.0,
        "versions": f"danlu, torch {versions()['torch']}, numpy {np.__version__}, Python {sys.version_info[0]}.{sys.version_info[1]}",
    }  # fmt: skip
    return (
        run,
        f"{data.table.origin}: {len(order):,} images to train on in batches of {BATCH}, {len(tests):,} to test",
    )


# --- the others ---------------------------------------------------------------------------------------------------------


def elsewhere(name: str, home: Path, folder: Path) -> dict[str, Any]:
    """What a framework measured of itself; {"skipped": why} where it could not."""
    python = home / name / "bin" / "python"
    if not python.is_file():
        return {"skipped": f"there is no environment {home / name}: --setup {home}"}
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    surroundings = {**os.environ, **single, **FRAMEWORKS[name].environment}
    for taken in ("PYTHONPATH", "VIRTUAL_ENV"):
        surroundings.pop(taken, None)
    if name == "theano":
        surroundings["THEANO_FLAGS"] += f",base_compiledir={folder.parent / 'theano'}"
    script = HERE / "elsewhere" / FRAMEWORKS[name].script
    ended = subprocess.run(
        [str(python), "-W", "ignore", str(script), str(folder)],
        capture_output=True,
        text=True,
        env=surroundings,
        check=False,
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("danlu ")]
    if ended.returncode or not lines:
        last_line = (ended.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return {"skipped": f"{name} ended with {ended.returncode}: {last_line[:300]}"}
    return json.loads(lines[-1].removeprefix("danlu "))


def report(result: dict[str, Any]) -> str:
    """The Markdown table."""
    lines = [
        "# Which framework",
        "",
        machine_line(result["machine"], result["cores_used_by_others"]),
        "",
    ]
    lines += [
        f"{result['data']}. One epoch, momentum {MOMENTUM}, learning rate {RATE}, float32, one thread.",
        "",
    ]
    lines += [
        "| network | framework | outputs differ by | test accuracy | epoch, processor seconds | on the wall | before it (compiling) | versions |"
    ]
    lines += ["|---|---|---:|---:|---:|---:|---:|---|"]
    for row in result["runs"]:
        name = (
            "PyTorch (danlu)"
            if row["framework"] == "danlu"
            else FRAMEWORKS[row["framework"]].description
        )
        if "skipped" in row:
            lines.append(f"| {row['network']} | {name} | | | | | | skipped: {row['skipped']} |")
            continue
        differs = (
            "0"
            if row["framework"] == "danlu"
            else f"{row['difference']:.1e}{'' if row['difference'] <= ALLOWED else ' (TOO FAR)'}"
        )
        cells = [
            differs,
            f"{row['accuracy']:.4f}",
            f"{row['processor']:.1f}",
            f"{row['seconds']:.1f}",
            f"{row['warm']:.1f}",
            row["versions"],
        ]
        lines.append(f"| {row['network']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
