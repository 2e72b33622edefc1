"""The artifact on disk: everything needed to use a model, in one folder that is written all or
nothing.

    artifact.json               recipe, task, inputs, preprocessing, scores, provenance; size and
                                SHA-256 of every file; has a checksum of its own
    weights.safetensors         the released weights
    preprocessing.safetensors   arrays that the transforms learnt
    recipe.lock.yaml            the recipe with every default, to be read by people

Loading runs no code from the folder: models and transforms are danlu's own parts, chosen by name
and checked like a recipe."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor, nn

from danlu import recipe as recipes
from danlu import registry
from danlu.artifact.memory_limit import AllocationLimit
from danlu.artifact.packing import pack, unpack
from danlu.data.preprocessing import Preprocessor
from danlu.errors import ArtifactError, DanluError
from danlu.layers.tensors import AfterLoad, unique_tensors
from danlu.parts.tasks._base import Task
from danlu.recipe import Recipe
from danlu.system.atomic_files import (
    atomic_folder,
    not_found,
    read_checked,
    read_checked_json,
    recover,
    require_inside,
    sha256,
    with_checksum,
    write_file,
)
from danlu.system.trust import without_lookups
from danlu.terms import InputSpec

FORMAT = 1
# the memory that building a model may take: bytes for each byte of its weights (unpacked, packed),
# and bytes beside; the recipe in a file may ask for more than any machine has
_UNPACKED, _PACKED, _BESIDE = 4, 40, 1 << 30
FILES = ("weights.safetensors", "preprocessing.safetensors", "recipe.lock.yaml")


class StoredInput(TypedDict):
    """An input spec as JSON values: the fields of danlu.terms.InputSpec."""

    kind: Literal["numbers", "categories", "image", "tokens", "frames", "series"]
    shape: list[int]
    names: list[str]
    cardinalities: list[int]
    mean: NotRequired[list[float]]
    std: NotRequired[list[float]]
    of: NotRequired[list[str]]


@dataclass
class Contents:
    """What an artifact holds, in memory.

    module       the trained model
    scores       scores by split
    provenance   data, versions, steps: where the artifact comes from
    described    the input specs of the model where the task makes its own examples; None: those of
                 the preprocessing
    path         its folder; None where it is in memory alone
    changes      what compressors did to the model, in order: {"name", "options", "state"} each.
                 They are done again to a newly built model, before its weights are read
    """

    recipe: Recipe
    module: nn.Module
    task: Task
    preprocessor: Preprocessor
    scores: dict[str, Any]
    provenance: dict[str, Any]
    described: dict[str, InputSpec] | None = None
    path: Path | None = None
    changes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def write(path: Path, contents: Contents, lock: str) -> None:
    """Write the artifact folder, all or nothing; `lock` is the text of recipe.lock.yaml."""
    with atomic_folder(path) as folder:
        write_files(folder, contents, lock)


def write_files(folder: Path, contents: Contents, lock: str) -> None:
    """Write the files of an artifact into a folder of `atomic_folder`."""
    from safetensors.numpy import save as save_arrays
    from safetensors.torch import save as save_tensors

    prepared, arrays = contents.preprocessor.state()
    weights = {
        name: tensor.detach().to("cpu").contiguous()
        for name, tensor in unique_tensors(contents.module).items()
    }
    eight_bits = {name for change in contents.changes for name in change["state"].get("stored", ())}
    weights, how = pack(weights, eight_bits, sparse=bool(contents.changes))
    data = {
        "weights.safetensors": save_tensors(weights),
        "preprocessing.safetensors": save_arrays(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        ),
        "recipe.lock.yaml": lock.encode(),
    }
    manifest = {
        "format": FORMAT,
        "name": contents.recipe.name,
        "recipe": contents.recipe.as_dict(),
        "task": contents.task.state(),
        "inputs": inputs_to_json(contents.described or contents.preprocessor.inputs),
        "preprocessing": prepared,
        "scores": contents.scores,
        "provenance": contents.provenance,
        **({"changes": contents.changes, "stored": how} if contents.changes else {}),
        "files": {
            name: {"size": len(content), "sha256": sha256(content)}
            for name, content in data.items()
        },
    }
    for name, content in data.items():
        write_file(folder / name, content)
    write_file(folder / "artifact.json", with_checksum(manifest))


def find_artifact(path: str | Path) -> Path:
    """The artifact folder of a path: the folder itself, or that of a run folder. Raises
    ArtifactError that says what is there instead."""
    path = Path(path)
    for folder in (path, path / "artifact"):
        if not folder.exists():
            recover(folder)
        if (folder / "artifact.json").is_file():
            return require_inside(path, folder)
    if path.name == "artifact.json" and path.is_file():
        return path.parent
    if not path.exists():
        raise not_found(path, "there is no such artifact or run.")
    if (path / "recipe.lock.yaml").is_file():
        raise ArtifactError(
            "this run has not finished: it has no artifact yet.",
            where=str(path),
            hint="run the same danlu train command again: it resumes",
        )
    raise ArtifactError(
        "this is no artifact: it has no artifact.json.",
        where=str(path),
        hint="an artifact is the folder RUN/artifact that danlu train writes",
    )


def read(path: str | Path) -> Contents:
    """The artifact at `path`, every file verified. Raises ArtifactError naming the file that is
    damaged, missing or of another format."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_arrays
    from safetensors.torch import load as load_tensors

    folder = find_artifact(path)
    where = folder / "artifact.json"
    try:
        manifest = read_checked_json(where)
        if manifest.get("format") != FORMAT:
            raise ValueError(
                f"it is of format {manifest.get('format')}, and this danlu reads format {FORMAT}"
            )
        data = {}
        for name in FILES:  # only known names: what the manifest lists never chooses a path
            where = folder / name
            data[name] = read_checked(
                where, manifest["files"][name]["size"], manifest["files"][name]["sha256"]
            )
        where = folder / "weights.safetensors"
        weights = load_tensors(data["weights.safetensors"])
        where = folder / "preprocessing.safetensors"
        arrays = load_arrays(data["preprocessing.safetensors"])
    except FileNotFoundError:
        raise ArtifactError("the file is missing.", where=str(where)) from None
    except OSError as error:
        raise ArtifactError(
            f"cannot be read: {error.strerror or error}.", where=str(where)
        ) from None
    except MemoryError:
        raise ArtifactError("the file does not fit into memory.", where=str(where)) from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        SafetensorError,
    ) as error:
        raise ArtifactError(f"this artifact is damaged: {error}.", where=str(where)) from None
    most = (_PACKED if manifest.get("stored") else _UNPACKED) * len(
        data["weights.safetensors"]
    ) + _BESIDE
    try:
        _check_manifest(manifest)
        with without_lookups():
            recipe = recipes.read(manifest["recipe"], registry)
            task = registry.restore_task(recipe.task, manifest["task"])
            preprocessor = Preprocessor.restore(manifest["preprocessing"], arrays)
            described = (
                inputs_from_json(manifest["inputs"])
                if "inputs" in manifest
                else preprocessor.inputs
            )
            with torch.random.fork_rng(devices=[]), AllocationLimit(most):
                module = registry.build_model(recipe.model, described, task.output)
                changes = manifest.get("changes", [])
                for change in changes:
                    replay(change, module)
        load_weights(module, unpack(weights, manifest.get("stored", {}), unique_tensors(module)))
        for layer in module.modules():
            if isinstance(layer, AfterLoad):
                layer.after_load()
    except DanluError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"this artifact cannot be rebuilt: {error.problem.message}",
            where=str(folder),
            hint=error.problem.hint,
        ) from None
    except MemoryError as error:
        reason = str(error) or "it does not fit into memory"
        raise ArtifactError(
            f"this artifact cannot be rebuilt: {reason}.", where=str(folder)
        ) from None
    except Exception as error:  # a hostile manifest can make parts and libraries raise anything
        reason = str(error).strip().split("\n")[0][:300].rstrip(".")
        raise ArtifactError(
            f"this artifact cannot be rebuilt: {type(error).__name__}: {reason}.", where=str(folder)
        ) from None
    module.eval()
    return Contents(
        recipe,
        module,
        task,
        preprocessor,
        manifest["scores"],
        manifest["provenance"],
        described,
        folder,
        changes,
    )


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raise ValueError where scores, provenance or target do not have their written form."""
    scores, provenance = manifest["scores"], manifest["provenance"]
    if not isinstance(scores, dict) or not all(
        isinstance(split_scores, dict) for split_scores in scores.values()
    ):
        raise ValueError("its scores are no mapping of mappings")
    if not isinstance(provenance, dict) or not isinstance(provenance.get("data", {}), dict):
        raise ValueError("its provenance is no mapping")
    target, recipe_target = manifest["task"].get("target"), manifest["recipe"]["data"].get("target")
    if isinstance(target, str) and isinstance(recipe_target, str) and target != recipe_target:
        raise ValueError(f"its task has the target {target!r}, and its recipe {recipe_target!r}")


def replay(change: Mapping[str, object], module: nn.Module) -> None:
    """Do to a newly built model what a compressor did to the trained one. Raises ValueError,
    KeyError, TypeError or AttributeError where the change does not fit."""
    name = cast("str", change["name"])  # the registry refuses what is no name
    compressor = registry.compressor(name)
    config = registry.config("compressors", name).model_validate(change["options"])
    # each compressor checks its own state
    compressor.replay(config, cast("dict[str, Any]", change["state"]), module)


def inputs_to_json(inputs: Mapping[str, InputSpec]) -> dict[str, dict[str, object]]:
    """Input specs as JSON values.

    >>> inputs_to_json({"x": InputSpec("numbers", (3,))})["x"]["shape"]
    [3]
    """
    return {
        name: {
            "kind": spec.kind,
            "shape": list(spec.shape),
            "names": list(spec.names),
            "cardinalities": list(spec.cardinalities),
            "mean": list(spec.mean),
            "std": list(spec.std),
            "of": list(spec.of),
        }
        for name, spec in inputs.items()
    }


def inputs_from_json(plain: Mapping[str, StoredInput]) -> dict[str, InputSpec]:
    """The input specs that `inputs_to_json` wrote. Raises ValueError for a size that no input can
    have."""
    inputs = {}
    for name, spec in plain.items():
        sizes = [*spec["shape"], *spec["cardinalities"]]
        if not sizes or any(type(size) is not int or not 0 < size < 2**31 for size in sizes):
            raise ValueError(f"the input {name} has a size that no input can have")
        inputs[str(name)] = InputSpec(
            spec["kind"],
            tuple(spec["shape"]),
            names=tuple(map(str, spec["names"])),
            cardinalities=tuple(spec["cardinalities"]),
            mean=tuple(map(float, spec.get("mean", [0.0]))),
            std=tuple(map(float, spec.get("std", [1.0]))),
            of=tuple(map(str, spec.get("of", ()))),
        )
    return inputs


def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy named weights into a module. Raises ArtifactError where a name, shape or dtype differs,
    and for NaN."""
    wanted = unique_tensors(module)
    if set(wanted) != set(weights):
        odd = sorted(set(wanted) ^ set(weights))
        raise ArtifactError(
            f"the weights are of another model: {', '.join(odd[:3])} are in one of both only."
        )
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape or tensor.dtype != weights[name].dtype:
            raise ArtifactError(
                f"the weight {name} has shape {list(weights[name].shape)}, "
                f"not {list(tensor.shape)}."
            )
        if tensor.is_floating_point() and bool(weights[name].isnan().any()):
            raise ArtifactError(f"the weight {name} has entries that are no numbers (NaN).")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(weights[name])
