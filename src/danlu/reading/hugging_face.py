"""The folder of a Hugging Face checkpoint: its architecture, tokenizer and weights.

    config.json                what the network is built of
    model.safetensors          the weights, or several files with an index
    tokenizer.json             the tokenizer, for models of text
    preprocessor_config.json   how images are scaled, for models of images

No code in the folder is run. Weights are read from safetensors only: a .bin file is a pickle, which
can run any code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danlu.errors import DataError, MissingExtra

WANTED = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "preprocessor_config.json",
)
LARGEST = 16 << 20  # bytes of a config.json
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

    DataError where config.json is unreadable, names no model_type, or the weights are quantised."""
    config = _read(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise DataError(
            "it names no model_type.",
            where=str(folder / "config.json"),
            hint="give a checkpoint of transformers",
        )
    if config.get("quantization_config"):
        raise DataError(
            "its weights are quantised, and danlu trains plain ones.",
            where=str(folder),
            hint="give the original checkpoint",
        )
    labels = config.get("id2label")
    names = (
        [str(labels[key]) for key in sorted(labels, key=int)] if isinstance(labels, Mapping) else []
    )
    kept = {
        key: value
        for key, value in config.items()
        if key not in (*_LEFT_OUT, *_LABELS) and not key.startswith("_")
    }
    preprocessor = folder / "preprocessor_config.json"
    return {
        "config": kept,
        "labels": names,
        "pixels": _pixels(_read(preprocessor)) if preprocessor.is_file() else None,
    }


def model_classes(folder: Path) -> list[str]:
    """The classes of transformers that config.json names ("BertForMaskedLM"); [] without any."""
    named = _read(folder / "config.json").get("architectures")
    return [str(name) for name in named] if isinstance(named, list) else []


def tokenizer_path(folder: Path) -> Path:
    """The path of its tokenizer.json. DataError where there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        hint = (
            "make one: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
        raise DataError("the checkpoint has no tokenizer.json.", where=str(folder), hint=hint)
    return path


def weight_files(folder: Path) -> list[Path]:
    """Its .safetensors files, sorted. DataError where there is none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")])
        reason = (
            f" ({pickled[0].name} is a pickle, which can run code when it is read)"
            if pickled
            else ""
        )
        hint = (
            "save it again as safetensors: model.save_pretrained(FOLDER)"
            if pickled
            else "give the folder of a checkpoint"
        )
        raise DataError(
            f"the checkpoint has no .safetensors file{reason}.", where=str(folder), hint=hint
        )
    return files


def digest(folder: Path) -> str:
    """The SHA-256 (hexadecimal) of its weights, its config and its tokenizer."""
    hashed = hashlib.sha256()
    extra_files = [
        path for name in ("config.json", "tokenizer.json") if (path := folder / name).is_file()
    ]
    for file_path in (*weight_files(folder), *extra_files):
        with file_path.open("rb") as file:
            hashed.update(
                f"{file_path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode()
            )
    return hashed.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping")
        return content
    except OSError as error:
        hint = "name the folder that save_pretrained wrote"
        raise DataError(
            f"cannot be read: {error.strerror or error}.", where=str(path), hint=hint
        ) from None
    except ValueError as error:
        raise DataError(
            f"this is no such file of a checkpoint: {error}.", where=str(path)
        ) from None


def _pixels(settings: Mapping[str, Any]) -> dict[str, Any]:
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
    sound = all(isinstance(number, int) and 0 < number <= 8192 for number in pair)
    plain = settings.get("do_normalize") is False
    mean, std = (
        ([0.0], [1.0])
        if plain
        else (settings.get("image_mean", _MEAN), settings.get("image_std", _STD))
    )
    return {
        "size": pair if sound else None,
        "mean": [float(number) for number in mean],
        "std": [float(number) for number in std],
    }
