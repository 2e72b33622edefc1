"""The folder of a checkpoint: written from an artifact of gpt or encoder, read as one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danlu.artifact.artifact import Contents
from danlu.artifact.hugging_face import bert, llama
from danlu.artifact.hugging_face.tokenizer import TokenizerFile, tokenizer_file, word_tokenizer_file
from danlu.errors import ArtifactError, DataError
from danlu.layers.transformer.language_model import LanguageModel
from danlu.reading import hugging_face
from danlu.system.atomic_files import atomic_folder, write_file
from danlu.terms import BEGINNING, END, FIRST_TOKEN

FARTHEST = 1e-4  # largest difference of logits that is let through, relative to the largest logit where that is above 1
_LOOKED_AT = (2, 24)  # rows and places of the tokens that both are asked for


def write(artifact: Contents, path: str | Path) -> list[Path]:
    """Write an artifact of gpt as a Llama of transformers, or one of encoder as a BERT, all or
    nothing; the files written.

    Where transformers is installed, the folder is read back by it, and what it answers compared.
    Raises ArtifactError for a model that is no such network, with the options that would make it
    one, and where the answers differ."""
    where = str(artifact.path or artifact.recipe.name)
    files, told = files_of(artifact)
    gpt = artifact.recipe.model.name == "gpt"
    if Path(path).exists():
        raise ArtifactError(
            "there is already a file or folder of this name.",
            where=str(path),
            hint="choose another name",
        )
    with atomic_folder(Path(path)) as folder:
        for each, data in files.items():
            write_file(folder / each, data)
        if importlib.util.find_spec("transformers") is not None:
            _refuse_different(
                artifact.module,
                folder,
                told,
                where,
                kind="causal" if gpt else bert.TASKS[artifact.recipe.task.name],
            )
    return [Path(path) / each for each in files]


def files_of(artifact: Contents) -> tuple[dict[str, bytes], TokenizerFile]:
    """(the files of the folder by name, the tokenizer as it is written). ArtifactError for a model
    that is no such network."""
    where = str(artifact.path or artifact.recipe.name)
    name = artifact.recipe.model.name
    if name not in ("gpt", "encoder"):
        raise ArtifactError(
            f"only a gpt or an encoder can be written in the layout of Hugging Face, and this model is {name}.",
            where=where,
            hint="danlu predict and danlu generate use it as it is",
        )
    return _of_gpt(artifact, where) if name == "gpt" else _of_encoder(artifact, where)


def read(path: str | Path) -> nn.Module:
    """A Llama checkpoint as danlu's gpt, or a BERT one as its encoder, in evaluation mode:
    forward({"tokens": codes of the file}) -> logits.

    Of a BERT for hidden tokens, classes of a text, or classes of tokens, as its config.json says.
    Raises DataError where the folder is not whole, or the network has parts that danlu's has not.
    """
    from safetensors.torch import load_file

    folder = Path(path)
    about = hugging_face.architecture(folder)
    weights: dict[str, Tensor] = {}
    for file in hugging_face.weight_files(folder):
        weights |= load_file(str(file))
    try:
        if about["config"]["model_type"] == "bert":
            kind = _kind_of_bert(folder)
            return bert.module_of(
                about["config"],
                kind,
                max(len(about["labels"]), 1) if about["labels"] else 2,
                weights,
                str(folder),
            )
        return llama.module_of(about["config"], weights, str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"its config.json makes no network: {error}.", where=str(folder)) from None


def difference(
    module: nn.Module, folder: Path, told: TokenizerFile, kind: str = "causal"
) -> tuple[float, float]:
    """(the largest difference of logits between a model and its folder as transformers reads it,
    the largest logit).

    `kind` is "causal" for a gpt, else one of danlu.artifact.hugging_face.bert.TASKS' values.
    """
    from danlu.layers.pretrained.network import library, quietly

    ours = torch.from_numpy(told.rows)
    known = torch.nonzero(ours >= FIRST_TOKEN).flatten()
    with quietly(), torch.inference_mode():
        named = (
            library().LlamaForCausalLM if kind == "causal" else getattr(library(), f"Bert{kind}")
        )
        other = named.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32
        ).eval()
        places = min(_LOOKED_AT[1], int(other.config.max_position_embeddings))
        picked = torch.randint(
            len(known), (_LOOKED_AT[0], places), generator=torch.Generator().manual_seed(0)
        )
        codes = known[picked]
        inputs = dict.fromkeys(names_read(module), ours[codes])
        wanted, found = module.eval().to("cpu")(inputs), other(codes).logits
        if kind in ("causal", "ForMaskedLM"):
            wanted, found = wanted[..., ours[known]], found[..., known]
    return float((wanted - found).abs().max()), float(wanted.abs().max())


def names_read(module: nn.Module) -> tuple[str, ...]:
    """What the module calls the tokens that it reads."""
    readers = [
        each.encoder.reader.names
        for each in module.modules()
        if isinstance(each, bert.EncodedPlaces | bert.EncodedRow)
    ]
    return readers[0] if readers else ("tokens",)


def _of_gpt(artifact: Contents, where: str) -> tuple[dict[str, bytes], TokenizerFile]:
    from safetensors.torch import save

    module = artifact.module
    assert isinstance(module, LanguageModel)
    llama.refuse_others(artifact.recipe.model.options, where)
    tokenizer = artifact.preprocessor.tokenizer
    if tokenizer is None:
        raise ArtifactError("this artifact has not exactly one tokenizer.", where=where)
    told = tokenizer_file(tokenizer, where)
    context = int(getattr(artifact.task, "context", 0) or module.context)
    config = llama.config(module, context, len(told.rows), told.codes)
    generation = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generation |= {
        "suppress_tokens": told.never_drawn or None,
        "do_sample": True,
        "temperature": 0.8,
    }
    return {
        "config.json": _json(config),
        "generation_config.json": _json(generation),
        "model.safetensors": save(llama.tensors(module, told.rows), metadata={"format": "pt"}),
        "tokenizer.json": told.text.encode(),
        "tokenizer_config.json": _json(told.config(context)),
    }, told


def _of_encoder(artifact: Contents, where: str) -> tuple[dict[str, bytes], TokenizerFile]:
    from safetensors.torch import save

    task = artifact.recipe.task.name
    found = bert.bert_parts(artifact.module, artifact.recipe.model.options, task, where)
    told = _told(artifact, where)
    labels = () if task == "masked_language_modeling" else artifact.task.output.names
    config = bert.config(found, task, len(told.rows), told.codes, labels)
    assert found.encoder.positions is not None
    return {
        "config.json": _json(config),
        "model.safetensors": save(bert.tensors(found, task, told.rows), metadata={"format": "pt"}),
        "tokenizer.json": told.text.encode(),
        "tokenizer_config.json": _json(
            told.config(found.encoder.positions.num_embeddings, encoder=True)
        ),
    }, told


def _told(artifact: Contents, where: str) -> TokenizerFile:
    """What reads an encoder's text, as a file."""
    tokenizer = artifact.preprocessor.tokenizer
    steps = [step for chain in artifact.preprocessor.chains for step in chain.steps]
    if tokenizer is not None:
        options: Any = next(part.options for part, state in steps if "tokenizer" in state)
        return tokenizer_file(
            tokenizer,
            where,
            tuple(
                code
                for code, asked in ((BEGINNING, options.beginning), (END, options.end))
                if asked
            ),
        )
    words = [(part.options, state) for part, state in steps if part.name == "vocabulary"]
    if len(words) != 1:
        raise ArtifactError("this artifact has not exactly one tokenizer.", where=where)
    asked, state = words[0]
    plain = state["labels"]
    return word_tokenizer_file(state["words"], not plain and asked.lower, not plain and asked.digits)  # type: ignore[attr-defined]


def _kind_of_bert(folder: Path) -> str:
    named = hugging_face.classes(folder)
    kind = next(
        (kind for kind in bert.TASKS.values() for each in named if each == f"Bert{kind}"), None
    )
    if kind is None:
        wanted = " or ".join(f"Bert{kind}" for kind in bert.TASKS.values())
        raise DataError(
            f"its config.json names {', '.join(named) or 'no architecture'}, and danlu's encoder is one of {wanted}.",
            where=str(folder),
            hint="use it as it is: model: pretrained",
        )
    return kind


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _refuse_different(
    module: nn.Module, folder: Path, told: TokenizerFile, where: str, kind: str
) -> None:
    farthest, largest = difference(module, folder, told, kind)
    if not farthest <= FARTHEST * max(largest, 1.0):
        raise ArtifactError(
            f"transformers answers otherwise than this model (logits differ by {farthest:.2g}), so the folder is not written.",
            where=where,
            hint="report this: it is a fault of danlu",
        )
