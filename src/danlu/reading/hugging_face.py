"""The folder of a Hugging Face checkpoint: its architecture, tokenizer and weights.

    config.json                what the network is built of
    model.safetensors          the weights, or several files with an index
    tokenizer.json             the tokenizer, for models of text
    preprocessor_config.json   how images are scaled, for models of images

Anybody may have written such a folder. No code in it is run. Every file is a regular one that stays
inside the folder (`foreign_folder`), every value of its config.json is checked
(`hugging_face_config`), and the sizes of the weights are known before the network is built
(`safetensors_header`). Weights are read from safetensors only: a .bin file is a pickle, which can
run any code.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.errors import DataError, MissingExtra
from danlu.reading.foreign_folder import (
    inside,
    is_plain_name,
    names_inside,
    open_inside,
    read_inside,
)
from danlu.reading.hugging_face_config import checked_config
from danlu.reading.safetensors_header import StoredTensor, read_header

if TYPE_CHECKING:
    from torch import Tensor

WANTED = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "preprocessor_config.json",
)
LARGEST, LARGEST_INDEX = 4 << 20, 32 << 20  # bytes of a config.json, and of an index
MOST_LABELS = 1 << 18
# Keys that do not describe the network, or that name code or files; an artifact keeps the others.
_LEFT_OUT = (
    "auto_map",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "architectures",
    "attn_implementation",
)
_LABELS = ("id2label", "label2id", "num_labels", "problem_type")
_MEAN, _STD = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]  # of ViT, where a folder says nothing
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_LONGEST_LABEL = 1000
_MOST_FILES = 10_000


def locate(path: str, download: bool = False) -> Path:
    """The folder for a path, or for a name on the Hugging Face Hub (owner/name).

    A name is looked up in the local cache of the Hub; with `download` it is fetched where it is not
    there. DataError where there is no such folder or checkpoint."""
    if Path(path).is_dir():
        return Path(path)
    if path.count("/") > 1 or path.startswith((".", "/", "~")) or not path.strip():
        raise DataError(
            "there is no such folder.",
            where=path,
            hint="name the folder of a checkpoint, or owner/name on the Hub",
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtra(
            "the library transformers", "huggingface", "a checkpoint of the Hugging Face Hub"
        ) from None
    try:
        return Path(
            snapshot_download(path, local_files_only=not download, allow_patterns=list(WANTED))
        )
    except Exception as error:  # network, disk, name: the library raises dozens of types
        cause = str(error).strip().split("\n")[0][:200]
        hint = (
            "check the name and the network"
            if download
            else "give a folder, or add model.download: true to fetch it"
        )
        raise DataError(
            f"there is no such folder, and no such checkpoint is in the local cache ({cause}).",
            where=path,
            hint=hint,
        ) from None


def architecture(folder: Path) -> dict[str, Any]:
    """{"config": what the network is built of, "labels": the names of its classes (or []),
    "pixels": {"size": [height, width] or None, "mean": [...], "std": [...]}, or None for other
    models}.

    DataError where config.json is unreadable, names no model_type, has a value that no network can
    have, or the weights are quantised."""
    where = str(folder / "config.json")
    config = _read(folder, "config.json")
    if not isinstance(config.get("model_type"), str):
        raise DataError(
            "it names no model_type.", where=where, hint="give a checkpoint of transformers"
        )
    if config.get("quantization_config"):
        raise DataError(
            "its weights are quantised, and danlu trains plain ones.",
            where=str(folder),
            hint="give the original checkpoint",
        )
    checked_config(config, where)
    kept = {
        key: value
        for key, value in config.items()
        if key not in (*_LEFT_OUT, *_LABELS) and not key.startswith("_")
    }
    preprocessor = "preprocessor_config.json"
    there = preprocessor in names_inside(folder, preprocessor)
    return {
        "config": kept,
        "labels": _labels(config.get("id2label"), where),
        "pixels": _pixels(_read(folder, preprocessor), str(folder / preprocessor))
        if there
        else None,
    }


def _labels(labels: object, where: str) -> list[str]:
    """The names of the classes in the order of their numbers; [] where there are none."""
    if not isinstance(labels, Mapping):
        return []
    try:
        numbered = sorted((int(key), name) for key, name in labels.items())
        if [number for number, _ in numbered] != list(range(len(numbered))):
            raise ValueError("its numbers are not 0, 1, 2, ...")
        if len(numbered) > MOST_LABELS:
            raise ValueError(f"it has {len(numbered):,} classes")
        names = [str(name) for _, name in numbered if isinstance(name, str | int | float)]
        if len(names) != len(numbered) or any(len(name) > _LONGEST_LABEL for name in names):
            raise ValueError("a name in it is no text")
    except (ValueError, TypeError) as error:
        raise DataError(
            f"id2label must give each class a name, by numbers from 0 on: {error}.",
            where=where,
            hint="give the config.json that save_pretrained wrote",
        ) from None
    return names


def model_classes(folder: Path) -> list[str]:
    """The classes of transformers that config.json names ("BertForMaskedLM"); [] without any."""
    named = _read(folder, "config.json").get("architectures")
    return [str(name)[:100] for name in named[:10]] if isinstance(named, list) else []


def tokenizer_path(folder: Path) -> Path:
    """The path of its tokenizer.json. DataError where there is none."""
    name = "tokenizer.json"
    if name not in names_inside(folder, name):
        hint = (
            "make one: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
        raise DataError("the checkpoint has no tokenizer.json.", where=str(folder), hint=hint)
    inside(folder, name)
    return folder / name


def weight_files(folder: Path) -> list[str]:
    """The names of its files of weights: model.safetensors, else those that its index names, else
    all .safetensors files. DataError where there is none, or the index names no file of the
    folder."""
    names = names_inside(folder, ".safetensors")
    if _WEIGHTS in names:
        return [_WEIGHTS]
    if _INDEX in names_inside(folder, _INDEX):
        return sorted(set(_weight_map(folder).values()))
    if not names:
        pickled = [name for ending in _PICKLES for name in names_inside(folder, ending)]
        reason = (
            f" ({pickled[0]} is a pickle, which can run code when it is read)" if pickled else ""
        )
        hint = (
            "save it again as safetensors: model.save_pretrained(FOLDER)"
            if pickled
            else "give the folder of a checkpoint"
        )
        raise DataError(
            f"the checkpoint has no .safetensors file{reason}.", where=str(folder), hint=hint
        )
    return names


def _weight_map(folder: Path) -> dict[str, str]:
    """The file of each tensor, as model.safetensors.index.json says."""
    entries = _read(folder, _INDEX, LARGEST_INDEX).get("weight_map")
    where = str(folder / _INDEX)
    hint = "save the model again: model.save_pretrained(FOLDER)"
    if not isinstance(entries, Mapping) or not entries:
        raise DataError("it has no weight_map.", where=where, hint=hint)
    files = set(map(str, entries.values()))
    for name in sorted(files):
        if not is_plain_name(name) or not name.endswith(".safetensors"):
            raise DataError(
                "weight_map must name .safetensors files of this folder, and names "
                f"{name[:200]!r}.",
                where=where,
                hint=hint,
            )
    if len(files) > _MOST_FILES:
        raise DataError(f"it names {len(files):,} files.", where=where, hint=hint)
    return {str(tensor): str(name) for tensor, name in entries.items()}


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Type and shape of every tensor of the weights, by name, from the headers of their files.

    DataError where a file is missing or unsound, two files hold a tensor of the same name, or the
    index says otherwise."""
    return {name: tensor for name, (_, tensor) in _located(folder).items()}


def _located(folder: Path) -> dict[str, tuple[str, StoredTensor]]:
    """(its file, the tensor) by the tensor's name."""
    located: dict[str, tuple[str, StoredTensor]] = {}
    files = weight_files(folder)
    for file in files:
        for name, tensor in read_header(folder, file).items():
            if name in located:
                raise DataError(
                    f"the tensor {name[:200]} is in {located[name][0]} too.",
                    where=str(folder / file),
                    hint="keep the files of one checkpoint only",
                )
            located[name] = file, tensor
    if _WEIGHTS not in files and _INDEX in names_inside(folder, _INDEX):
        for name, file in _weight_map(folder).items():
            if name not in located or located[name][0] != file:
                raise DataError(
                    f"weight_map says that {name[:200]} is in {file}, and it is not.",
                    where=str(folder / _INDEX),
                    hint="download the checkpoint again",
                )
    return located


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the weights by name, as stored. Refuses as `stored_tensors` does."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    stored_tensors(folder)
    weights: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            weights |= load_file(inside(folder, file))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DataError(
                f"its weights cannot be read: {str(error)[:200].rstrip('.')}.",
                where=str(folder / file),
                hint="download the file again",
            ) from None
    return weights


def digest(folder: Path) -> str:
    """The SHA-256 (hexadecimal) of its weights, its config and its tokenizer."""
    weight_files(folder)  # refuses a folder without any
    hashed = hashlib.sha256()
    there = names_inside(folder, ".json")
    extra_files = [name for name in ("config.json", "tokenizer.json") if name in there]
    for name in (*names_inside(folder, ".safetensors"), *extra_files):
        with open_inside(folder, name) as file:
            hashed.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return hashed.hexdigest()


def _read(folder: Path, name: str, largest: int = LARGEST) -> dict[str, Any]:
    """The mapping that a JSON file of the folder holds. Raises DataError."""
    try:
        text = read_inside(folder, name, largest).decode("utf-8")
        content = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping")
        return content
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)[:200].rstrip(".")
    raise DataError(
        f"this is no such file of a checkpoint: {reason}.",
        where=str(folder / name),
        hint="give the file that save_pretrained wrote",
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number of JSON")


def _pixels(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """{"size": [height, width], "mean", "std"} of a preprocessor_config.json; size None where it
    names none."""
    size = (
        settings.get("crop_size")
        if settings.get("do_center_crop") and settings.get("crop_size")
        else settings.get("size")
    )
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        pair = [size.get("height", edge), size.get("width", edge)]
    else:
        pair = [size, size]
    sound = all(type(number) is int and 0 < number <= 8192 for number in pair)
    plain = settings.get("do_normalize") is False
    mean, std = (
        ([0.0], [1.0])
        if plain
        else (settings.get("image_mean", _MEAN), settings.get("image_std", _STD))
    )
    return {
        "size": pair if sound else None,
        "mean": _channels("image_mean", mean, where),
        "std": _channels("image_std", std, where, least=1e-6),
    }


def _channels(key: str, numbers: object, where: str, least: float = -1e6) -> list[float]:
    """The numbers of a preprocessor config, one a channel. Raises DataError."""
    sound = (
        isinstance(numbers, list)
        and 1 <= len(numbers) <= 1024
        and all(
            type(number) in (int, float) and math.isfinite(number) and least <= number <= 1e6
            for number in numbers
        )
    )
    if not sound:
        raise DataError(
            f"{key} must be a list of numbers from {least:g} to 1,000,000, one a channel.",
            where=where,
            hint="give the file that save_pretrained wrote",
        )
    return [float(number) for number in numbers]  # type: ignore[attr-defined]
