"""The folder of a checkpoint: written from an artifact of gpt, read as a gpt."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch

from danlu.artifact import Contents
from danlu.durable import whole_folder, write_file
from danlu.errors import ArtifactError, DataError
from danlu.hugging_face import llama
from danlu.hugging_face.tokenizer import Written, written
from danlu.layers.language_model import LanguageModel
from danlu.reading import hugging_face
from danlu.terms import FIRST_TOKEN

FARTHEST = 1e-4  # largest difference of logits that is let through, relative to the largest logit where that is above 1
_LOOKED_AT = (2, 24)  # rows and places of the tokens that both are asked for


def write(artifact: Contents, path: str | Path) -> list[Path]:
    """Write an artifact of gpt as a Llama of transformers, all or nothing; the files written.

    Where transformers is installed, the folder is read back by it, and what it answers compared. Raises ArtifactError for a model that is
    no such network, with the options that would make it one, and where the answers differ.
    """
    where = str(artifact.path or artifact.recipe.name)
    module, options = artifact.module, artifact.recipe.model.options
    if artifact.recipe.model.name != "gpt" or not isinstance(module, LanguageModel):
        raise ArtifactError(
            f"only a gpt can be written in the layout of Hugging Face, and this model is {artifact.recipe.model.name}.",
            where=where,
            hint="an encoder normalises before each half of a block, and BERT after it: no layout there fits it",
        )
    llama.refuse_others(options, where)
    if Path(path).exists():
        raise ArtifactError("there is already a file or folder of this name.", where=str(path), hint="choose another name")
    tokenizer = artifact.preprocessor.tokenizer
    if tokenizer is None:
        raise ArtifactError("this artifact has not exactly one tokenizer.", where=where)
    told = written(tokenizer, where)
    files = _files(artifact, module, told)
    with whole_folder(Path(path)) as folder:
        for name, data in files.items():
            write_file(folder / name, data)
        if importlib.util.find_spec("transformers") is not None:
            _refuse_different(module, folder, told, where)
    return [Path(path) / name for name in files]


def read(path: str | Path) -> LanguageModel:
    """A Llama checkpoint as danlu's gpt, in evaluation mode: forward({"tokens": codes of the file}) -> logits.

    Raises DataError where the folder is not whole, or the network has parts that gpt has not.
    """
    from safetensors.torch import load_file

    folder = Path(path)
    about = hugging_face.architecture(folder)["config"]
    weights: dict[str, torch.Tensor] = {}
    for file in hugging_face.weight_files(folder):
        weights |= load_file(str(file))
    try:
        return llama.module_of(about, weights, str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"its config.json makes no network: {error}.", where=str(folder)) from None


def difference(module: LanguageModel, folder: Path, told: Written) -> tuple[float, float]:
    """(the largest difference of logits between a gpt and its folder as transformers reads it, the largest logit)."""
    from danlu.layers.pretrained import library, quietly

    ours = torch.from_numpy(told.rows)
    known = torch.nonzero(ours >= FIRST_TOKEN).flatten()
    picked = torch.randint(len(known), _LOOKED_AT, generator=torch.Generator().manual_seed(0))
    codes = known[picked]
    with quietly(), torch.inference_mode():
        other = library().LlamaForCausalLM.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32).eval()
        wanted = module.eval().to("cpu")({"tokens": ours[codes]})[..., ours[known]]
        found = other(codes).logits[..., known]
    return float((wanted - found).abs().max()), float(wanted.abs().max())


def _files(artifact: Contents, module: LanguageModel, told: Written) -> dict[str, bytes]:
    from safetensors.torch import save

    context = int(getattr(artifact.task, "context", 0) or module.context)
    config = llama.config(module, context, len(told.rows), told.codes)
    generation = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generation |= {"suppress_tokens": told.never_drawn or None, "do_sample": True, "temperature": 0.8}
    return {
        "config.json": _json(config),
        "generation_config.json": _json(generation),
        "model.safetensors": save(llama.tensors(module, told.rows), metadata={"format": "pt"}),
        "tokenizer.json": told.text.encode(),
        "tokenizer_config.json": _json(told.config(context)),
    }


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _refuse_different(module: LanguageModel, folder: Path, told: Written, where: str) -> None:
    farthest, largest = difference(module, folder, told)
    if not farthest <= FARTHEST * max(largest, 1.0):
        raise ArtifactError(
            f"transformers answers otherwise than this model (logits differ by {farthest:.2g}), so the folder is not written.",
            where=where,
            hint="report this: it is a fault of danlu",
        )
