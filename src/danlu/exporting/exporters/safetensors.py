"""The plain weights (safetensors) beside a description in JSON, to build the network anew.

model.safetensors holds every tensor of the network under its name in danlu's module tree; a linear
layer's weight is (outputs, inputs), as in torch. config.json describes the network: the model
family and its options, inputs and outputs, what the task makes of them, and how columns are
prepared. Arrays that transforms learnt are in preprocessing.safetensors, where there are any.
Reading the files needs no danlu; the parity check builds the network from these files alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu import registry
from danlu.errors import ArtifactError, DanluError
from danlu.exporting.exporters._base import Run, RunInfo
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.artifact.artifact import Contents
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import TraceableModel

NEEDS: tuple[tuple[str, ...], str] = ((), "")
TORCH_FREE = False
WEIGHTS, CONFIG = "model.safetensors", "config.json"
LARGEST, LARGEST_CONFIG = 64 << 30, 64 << 20  # bytes


class Config(Options):
    """It has no options."""


def export(
    config: Config, artifact: Artifact, model: TraceableModel, folder: Path
) -> dict[str, Any]:
    """Write model.safetensors and config.json."""
    from safetensors.torch import save

    from danlu.artifact.artifact import inputs_to_json
    from danlu.layers.tensors import unique_tensors

    weights = {
        name: tensor.detach().to("cpu").contiguous()
        for name, tensor in unique_tensors(artifact.module).items()
    }
    (folder / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt", "producer": "danlu"}))
    output = artifact.task.output
    description = {
        "recipe": artifact.recipe.as_dict(),
        "model": artifact.recipe.model.as_dict(),
        "changes": artifact.changes,
        "inputs": inputs_to_json(artifact.described or artifact.preprocessor.inputs),
        "output": {
            "size": output.size,
            "names": list(output.names),
            "each": output.per,
            "steps": output.steps,
        },
        "task": {"part": artifact.recipe.task.as_dict(), "state": artifact.task.state()},
        "answers": {name: slot.as_json() for name, slot in model.outputs.items()},
        "preprocessing": artifact.preprocessor.state()[0],
    }
    (folder / CONFIG).write_text(
        json.dumps(description, ensure_ascii=False, indent=1) + "\n", "utf-8"
    )
    return {}


def start(folder: Path, run_info: RunInfo) -> Run:
    """Builds the network that the files describe."""
    import torch

    from danlu.exporting.traceable import traceable_model

    try:
        contents = _contents(folder)
        model = traceable_model(contents, _examples(contents))
    except DanluError as error:
        raise ArtifactError(
            f"no network can be built: {error.problem.message}",
            where=CONFIG,
            hint=error.problem.hint,
        ) from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RuntimeError,
        RecursionError,
    ) as error:
        raise ArtifactError(
            f"this export is damaged: {type(error).__name__}: {error}.", where=CONFIG
        ) from None

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = model.run(
            {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in model.inputs}
        )
        return {name: output.numpy() for name, output in outputs.items()}

    return run


def _contents(folder: Path) -> Contents:
    """What an artifact would hold, from the files of this export alone."""
    import torch
    from safetensors.torch import load

    from danlu import recipe as recipes
    from danlu.artifact import artifact as artifacts
    from danlu.data.preprocessing import Preprocessor
    from danlu.system.atomic_files import read_regular

    description = json.loads(read_regular(folder / CONFIG, LARGEST_CONFIG))
    recipe = recipes.read(description["recipe"], registry)
    task = registry.restore_task(recipe.task, description["task"]["state"])
    described = artifacts.inputs_from_json(description["inputs"])
    with torch.random.fork_rng(devices=[]):
        module = registry.build_model(recipe.model, described, task.output)
        for change in description["changes"]:
            artifacts.replay(change, module)
    artifacts.load_weights(module, load(read_regular(folder / WEIGHTS, LARGEST)))
    no_columns = Preprocessor({}, {}, {}, [], ())  # the network takes prepared inputs
    changes = description["changes"]
    return artifacts.Contents(
        recipe, module.eval(), task, no_columns, {}, {}, described, changes=changes
    )


def _examples(contents: Contents) -> dict[str, Tensor]:
    """Two rows of zeros (of tokens: ones) for each input, which show the shapes of the outputs."""
    import torch

    examples = {}
    for name, spec in (contents.described or {}).items():
        if spec.kind == "image":
            channels, height, width = spec.shape
            examples[name] = torch.zeros(2, height, width, channels, dtype=torch.uint8)
        elif spec.kind == "tokens":
            examples[name] = torch.ones(2, *spec.shape, dtype=torch.int64)
        elif spec.kind == "frames":
            examples[name] = torch.zeros(2, *spec.shape)
            examples[f"{name}_lengths"] = torch.full((2,), spec.shape[0], dtype=torch.int64)
        else:
            examples[name] = torch.zeros(
                2, *spec.shape, dtype=torch.int64 if spec.kind == "categories" else torch.float32
            )
    return examples


def card(run_info: RunInfo) -> list[str]:
    """How another program reads the files."""
    return [
        "`model.safetensors` holds the weights, `config.json` says what network they are of and "
        "how its inputs are prepared.",
        "",
        "```python",
        "from safetensors.numpy import load_file",
        'weights = load_file("model.safetensors")',
        "```",
    ]
