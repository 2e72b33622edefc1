"""danlu's encoder and the BERT of transformers: the same network, its tensors under other names.

V codes of the vocabulary, D width, S answers. BERT tells the first of two texts from the second by
token types. danlu reads one text: what the first type adds is part of its positions.
Source: modeling_bert.py of transformers 5; Devlin et al., 2019, arXiv:1810.04805.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from danlu.errors import ArtifactError, DataError
from danlu.layers.recurrent.sequence_reader import Reader
from danlu.layers.text.embeddings import WordEmbedding
from danlu.layers.transformer.blocks import Block, Sizes
from danlu.layers.transformer.encoder import (
    EncodedPlaces,
    EncodedRow,
    Encoder,
    Pooler,
    VocabularyHead,
)
from danlu.terms import BEGINNING, END, PADDING

NEEDED = {
    "positions": "learned",
    "normalization": "layer",
    "norm_position": "after",
    "feed_forward": "gelu",
    "parametrization": "standard",
}
TASKS = {
    "masked_language_modeling": "ForMaskedLM",
    "classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
}
NEVER = -1e4  # the bias of a code of the file that danlu has not
_LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


@dataclass(frozen=True)
class Pieces:
    """The parts of an encoder: what reads, and what answers. `pooler` and `head` (before `last`)
    are None where there is none."""

    encoder: Encoder
    last: nn.Linear
    pooler: Pooler | None = None
    head: VocabularyHead | None = None

    @property
    def words(self) -> nn.Embedding:
        """The table of codes."""
        (body,) = self.encoder.reader.bodies
        return cast("nn.Embedding", cast("WordEmbedding", body).tables[0])


def pieces(module: nn.Module, options: Any, task: str, where: str) -> Pieces:
    """The parts of an artifact's encoder. ArtifactError naming the options that BERT does not
    know."""
    needed = dict(NEEDED)
    if task == "classification":
        needed |= {"pooling": "first", "head": "dense"}
    if task == "masked_language_modeling":
        needed |= {"head": "dense", "pooling": "first"}
    odd = [name for name, value in needed.items() if getattr(options, name) != value]
    if odd:
        own = ", ".join(f"{name}: {getattr(options, name)}" for name in odd)
        raise ArtifactError(
            f"this encoder is not built as a BERT is ({own}), and Hugging Face knows no other network that it fits.",
            where=where,
            hint=f"train one with {', '.join(f'{name}: {needed[name]}' for name in odd)}",
        )
    if task not in TASKS:
        raise ArtifactError(
            f"an encoder trained for {task} has no layout there.",
            where=where,
            hint=f"it may be written after {', '.join(TASKS)}",
        )
    found = _parts_of(module)
    if (
        found is None
        or len(found.encoder.reader.names) != 1
        or not isinstance(found.encoder.widen, nn.Identity)
    ):
        raise ArtifactError(
            "this encoder reads more than one text of plain tokens, and a BERT reads nothing else.",
            where=where,
            hint="leave other columns out (data.columns.NAME.use: false), and codes of a word's spelling (vocabulary: {codes: []})",
        )
    return found


def _parts_of(module: nn.Module) -> Pieces | None:
    """The parts of a module that `models/encoder` built; None where it is another, or reads more
    than one text."""
    if isinstance(module, EncodedPlaces):
        last = module.head[-1] if isinstance(module.head, nn.Sequential) else None
        if module.aside is not None or last is None:
            return None
        head = last if isinstance(last, VocabularyHead) else None
        return Pieces(
            module.encoder, head.last if head is not None else cast("nn.Linear", last), head=head
        )
    rows = [each for each in module.modules() if isinstance(each, EncodedRow)]
    linear = [each for each in module.children() if isinstance(each, nn.Linear)]
    if len(rows) != 1 or len(linear) != 1 or linear[0].in_features != rows[0].encoder.width:
        return None
    return Pieces(rows[0].encoder, linear[0], pooler=cast("Pooler", rows[0].pooling))


def config(
    found: Pieces, task: str, size: int, codes: Mapping[int, int], labels: tuple[str, ...]
) -> dict[str, Any]:
    """The config.json; `codes` gives the file's code of danlu's special ones."""
    encoder = found.encoder
    block = cast("Block", encoder.stack.blocks[0])
    assert encoder.positions is not None and encoder.norm is not None
    made: dict[str, Any] = {
        "architectures": [f"Bert{TASKS[task]}"],
        "model_type": "bert",
        "vocab_size": size,
        "hidden_size": encoder.width,
        "num_hidden_layers": len(encoder.stack.blocks),
        "num_attention_heads": block.attention.num_heads,
        "intermediate_size": block.feed_forward.up.out_features,
        "hidden_act": "gelu",
        "max_position_embeddings": encoder.positions.num_embeddings,
        "type_vocab_size": 2,
        "layer_norm_eps": encoder.norm.eps,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": codes.get(PADDING, 0),
        "bos_token_id": codes.get(BEGINNING),
        "eos_token_id": codes.get(END),
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    if labels:
        made |= {"id2label": {str(code): name for code, name in enumerate(labels)}}
        made |= {"label2id": {name: code for code, name in enumerate(labels)}}
    return made


def tensors(found: Pieces, task: str, rows: np.ndarray) -> dict[str, Tensor]:
    """The tensors of model.safetensors; `rows` int64 (V of the file,) tells danlu's code of each of
    the file's, -1 for none."""
    encoder = found.encoder
    assert encoder.positions is not None
    made: dict[str, Tensor] = {
        "bert.embeddings.word_embeddings.weight": _chosen(found.words.weight, rows, 0.0),
        "bert.embeddings.position_embeddings.weight": encoder.positions.weight,
        "bert.embeddings.token_type_embeddings.weight": torch.zeros(2, encoder.width),
    }
    for theirs, layer in _layers(found, task).items():
        made |= {f"{theirs}.{name}": each for name, each in layer.named_parameters()}
    if found.head is not None:
        made["cls.predictions.decoder.weight"] = _chosen(found.last.weight, rows, 0.0)
        made["cls.predictions.decoder.bias"] = made["cls.predictions.bias"] = _chosen(
            found.last.bias, rows, NEVER
        )
    return {
        name: each.detach().to("cpu", torch.float32).clone().contiguous()
        for name, each in made.items()
    }


def _layers(found: Pieces, task: str) -> dict[str, nn.Module]:
    """Every layer whose tensors are the same on both sides, by its name there."""
    assert found.encoder.norm is not None
    layers = {"bert.embeddings.LayerNorm": found.encoder.norm}
    for number, block in enumerate(found.encoder.stack.blocks):
        layers |= {
            f"bert.encoder.layer.{number}.{theirs}": block.get_submodule(ours)
            for ours, theirs in _LAYER.items()
        }
    if found.pooler is not None:
        layers["bert.pooler.dense"] = found.pooler.dense
    if found.head is not None:
        layers |= {
            "cls.predictions.transform.dense": found.head.dense,
            "cls.predictions.transform.LayerNorm": found.head.norm,
        }
    else:
        layers["classifier"] = found.last
    return layers


def _chosen(weight: Tensor, rows: np.ndarray, missing: float) -> Tensor:
    """The rows of a tensor in the file's order."""
    kept = weight.detach().cpu()[torch.from_numpy(np.maximum(rows, 0))]
    lost = torch.from_numpy(rows < 0)
    return kept.masked_fill(lost.reshape(-1, *[1] * (kept.ndim - 1)), missing)


# --- from there -----------------------------------------------------------------------------------------------------------


def module_of(
    about: Mapping[str, Any], kind: str, labels: int, weights: Mapping[str, Tensor], where: str
) -> nn.Module:
    """A checkpoint as danlu's encoder, whose codes are those of the file; `kind` is one of TASKS'
    values.

    DataError for what an encoder is not built of, or a tensor that is missing.
    """
    weights = {_as_now(name): each for name, each in weights.items()}
    sizes = _sizes(about, where)
    size, width = int(about["vocab_size"]), sizes.width
    with torch.random.fork_rng(devices=[]):
        body = WordEmbedding((size,), (), width, letter_size=1, filters=1, unknown=0.0)
        encoder = Encoder(
            Reader(["tokens"], [body], 0.0),
            width,
            sizes,
            context=int(about["max_position_embeddings"]),
        )
        if kind == "ForSequenceClassification":
            module: nn.Module = nn.Sequential(
                EncodedRow(encoder, Pooler(width)), nn.Linear(width, labels)
            )
        else:
            last = (
                VocabularyHead(width, size) if kind == "ForMaskedLM" else nn.Linear(width, labels)
            )
            module = EncodedPlaces(encoder, None, nn.Sequential(nn.Identity(), last))
    found = _parts_of(module)
    assert found is not None and encoder.positions is not None
    task = next(name for name, each in TASKS.items() if each == kind)
    with torch.no_grad():
        _put(found.words.weight, "bert.embeddings.word_embeddings.weight", weights, where)
        _put(encoder.positions.weight, "bert.embeddings.position_embeddings.weight", weights, where)
        types = weights.get("bert.embeddings.token_type_embeddings.weight")
        if types is not None:
            encoder.positions.weight.add_(types[0])
        for theirs, layer in _layers(found, task).items():
            for name, parameter in layer.named_parameters():
                _put(parameter, f"{theirs}.{name}", weights, where)
        if found.head is not None:
            decoder = "cls.predictions.decoder.weight"
            tied = decoder not in weights and about.get("tie_word_embeddings", True)
            _put(
                found.last.weight,
                "bert.embeddings.word_embeddings.weight" if tied else decoder,
                weights,
                where,
            )
            _put(found.last.bias, "cls.predictions.bias", weights, where)
    for norm in (each for each in module.modules() if isinstance(each, nn.LayerNorm)):
        norm.eps = float(about.get("layer_norm_eps", 1e-12))
    return module.eval()


def _as_now(name: str) -> str:
    """The name of a tensor as versions of today have it."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _put(parameter: Tensor, name: str, weights: Mapping[str, Tensor], where: str) -> None:
    found = weights.get(name)
    if found is None or found.shape != parameter.shape:
        said = (
            "is missing"
            if found is None
            else f"has shape {list(found.shape)}, not {list(parameter.shape)}"
        )
        raise DataError(
            f"the tensor {name} {said}.",
            where=where,
            hint="give the whole checkpoint of a BERT, with its head",
        )
    parameter.copy_(found)


def _sizes(about: Mapping[str, Any], where: str) -> Sizes:
    odd = {
        "hidden_act is gelu": about.get("hidden_act", "gelu") != "gelu",
        "positions are absolute": about.get("position_embedding_type", "absolute")
        not in ("absolute", None),
        "it is no decoder": bool(about.get("is_decoder")) or bool(about.get("add_cross_attention")),
        f"its code of padding is {PADDING}": int(about.get("pad_token_id") or 0) != PADDING,
    }
    broken = [rule for rule, wrong in odd.items() if wrong]
    if broken:
        raise DataError(
            f"danlu's encoder is this network only where {' and '.join(broken)}.",
            where=where,
            hint="use it as it is: model: pretrained",
        )
    return Sizes(
        num_layers=int(about["num_hidden_layers"]),
        width=int(about["hidden_size"]),
        num_heads=int(about["num_attention_heads"]),
        feed_forward="gelu",
        feed_forward_width=int(about["intermediate_size"]),
        normalization="layer",
        bias=True,
        norm_first=False,
    )
