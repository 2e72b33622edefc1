"""danlu's encoder and the BERT of transformers: the same network with other names for its tensors.

V is the size of the vocabulary, D the width, S the number of outputs. A BERT tells the first of two
texts from the second by token types. danlu reads one text: the embedding of the first type is added
to the embeddings of the positions.
Source: modeling_bert.py of transformers 5; Devlin et al., 2019, arXiv:1810.04805.
"""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Required, TypedDict, cast

import numpy as np
import torch
from torch import Tensor, nn

from danlu.errors import ArtifactError, DataError
from danlu.layers.recurrent.sequence_reader import Reader
from danlu.layers.tensors import from_array
from danlu.layers.text.embeddings import WordEmbedding
from danlu.layers.transformer.blocks import Block, StackSizes
from danlu.layers.transformer.encoder import (
    EncodedPlaces,
    EncodedRow,
    Encoder,
    Pooler,
    VocabularyHead,
)
from danlu.recipe import Options
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
NEVER = -1e4  # the logit of a token of the file that danlu's tokenizer does not have
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


class BertConfig(TypedDict, total=False):
    """What is read of a BERT's config.json; names and meanings are those of transformers."""

    vocab_size: Required[int]
    hidden_size: Required[int]
    intermediate_size: Required[int]
    num_hidden_layers: Required[int]
    num_attention_heads: Required[int]
    max_position_embeddings: Required[int]
    hidden_act: str
    position_embedding_type: str | None
    is_decoder: bool
    add_cross_attention: bool
    pad_token_id: int | None
    layer_norm_eps: float
    tie_word_embeddings: bool


@dataclass(frozen=True)
class BertParts:
    """The parts of an encoder model: the encoder and the layers after it. `pooler`, and `head` (the
    layer before `last`), are None in a model without them."""

    encoder: Encoder
    last: nn.Linear
    pooler: Pooler | None = None
    head: VocabularyHead | None = None

    @property
    def words(self) -> nn.Embedding:
        """The embedding of the tokens (V, D)."""
        (body,) = self.encoder.reader.bodies
        return cast("nn.Embedding", cast("WordEmbedding", body).tables[0])


def bert_parts(module: nn.Module, options: Options, task: str, where: str) -> BertParts:
    """The parts of an artifact's encoder. Raises ArtifactError for options that a BERT does not
    have, and names them."""
    needed = dict(NEEDED)
    if task == "classification":
        needed |= {"pooling": "first", "head": "dense"}
    if task == "masked_language_modeling":
        needed |= {"head": "dense", "pooling": "first"}
    own_values = options.model_dump()
    odd = [name for name, value in needed.items() if own_values[name] != value]
    if odd:
        own = ", ".join(f"{name}: {own_values[name]}" for name in odd)
        raise ArtifactError(
            f"this encoder is not built like a BERT ({own}), and Hugging Face has no other network "
            "that it fits.",
            where=where,
            hint=f"train one with {', '.join(f'{name}: {needed[name]}' for name in odd)}",
        )
    if task not in TASKS:
        raise ArtifactError(
            f"Hugging Face has no BERT for the task {task}.",
            where=where,
            hint=f"encoders of {', '.join(TASKS)} can be written",
        )
    parts = _parts_of(module)
    if (
        parts is None
        or len(parts.encoder.reader.names) != 1
        or not isinstance(parts.encoder.widen, nn.Identity)
    ):
        raise ArtifactError(
            "this encoder reads more than one text of plain tokens, and a BERT reads nothing else.",
            where=where,
            hint="leave other columns out (data.columns.NAME.use: false), and codes of a word's "
            "spelling (vocabulary: {codes: []})",
        )
    return parts


def _parts_of(module: nn.Module) -> BertParts | None:
    """The parts of a module that `models/encoder` built; None for another module, and for one that
    reads more than one text."""
    if isinstance(module, EncodedPlaces):
        last = module.head[-1] if isinstance(module.head, nn.Sequential) else None
        if module.aside is not None or last is None:
            return None
        head = last if isinstance(last, VocabularyHead) else None
        return BertParts(
            module.encoder, head.last if head is not None else cast("nn.Linear", last), head=head
        )
    rows = [child for child in module.modules() if isinstance(child, EncodedRow)]
    linear = [child for child in module.children() if isinstance(child, nn.Linear)]
    if len(rows) != 1 or len(linear) != 1 or linear[0].in_features != rows[0].encoder.width:
        return None
    return BertParts(rows[0].encoder, linear[0], pooler=cast("Pooler", rows[0].pooling))


def config(
    parts: BertParts, task: str, size: int, codes: Mapping[int, int], labels: tuple[str, ...]
) -> dict[str, object]:
    """The content of config.json. `size` is the number of tokens in the file, `codes` maps danlu's
    codes of special tokens to those of the file."""
    encoder = parts.encoder
    block = cast("Block", encoder.stack.blocks[0])
    assert encoder.positions is not None and encoder.norm is not None
    values: dict[str, object] = {
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
        values |= {"id2label": {str(code): name for code, name in enumerate(labels)}}
        values |= {"label2id": {name: code for code, name in enumerate(labels)}}
    return values


def tensors(parts: BertParts, task: str, rows: np.ndarray) -> dict[str, Tensor]:
    """The tensors of model.safetensors. `rows` int64 (V of the file,) holds, for each code of the
    file, danlu's code of the same token, or -1."""
    encoder = parts.encoder
    assert encoder.positions is not None
    named_tensors: dict[str, Tensor] = {
        "bert.embeddings.word_embeddings.weight": _chosen(parts.words.weight, rows, 0.0),
        "bert.embeddings.position_embeddings.weight": encoder.positions.weight,
        "bert.embeddings.token_type_embeddings.weight": torch.zeros(2, encoder.width),
    }
    for theirs, layer in _layers(parts, task).items():
        named_tensors |= {f"{theirs}.{name}": tensor for name, tensor in layer.named_parameters()}
    if parts.head is not None:
        named_tensors["cls.predictions.decoder.weight"] = _chosen(parts.last.weight, rows, 0.0)
        named_tensors["cls.predictions.decoder.bias"] = named_tensors["cls.predictions.bias"] = (
            _chosen(parts.last.bias, rows, NEVER)
        )
    return {
        name: tensor.detach().to("cpu", torch.float32).clone().contiguous()
        for name, tensor in named_tensors.items()
    }


def _layers(parts: BertParts, task: str) -> dict[str, nn.Module]:
    """Every layer whose tensors are the same in both networks, by its name in transformers."""
    assert parts.encoder.norm is not None
    layers = {"bert.embeddings.LayerNorm": parts.encoder.norm}
    for number, block in enumerate(parts.encoder.stack.blocks):
        layers |= {
            f"bert.encoder.layer.{number}.{theirs}": block.get_submodule(ours)
            for ours, theirs in _LAYER.items()
        }
    if parts.pooler is not None:
        layers["bert.pooler.dense"] = parts.pooler.dense
    if parts.head is not None:
        layers |= {
            "cls.predictions.transform.dense": parts.head.dense,
            "cls.predictions.transform.LayerNorm": parts.head.norm,
        }
    else:
        layers["classifier"] = parts.last
    return layers


def _chosen(weight: Tensor, rows: np.ndarray, missing: float) -> Tensor:
    """The rows of a tensor in the order of the file's codes; filled with `missing` where danlu has
    no such token."""
    chosen = weight.detach().cpu()[from_array(np.maximum(rows, 0))]
    absent = from_array(rows < 0)
    return chosen.masked_fill(absent.reshape(-1, *[1] * (chosen.ndim - 1)), missing)


# --- reading a checkpoint -------------------------------------------------------------------------


def module_of(
    config: BertConfig, kind: str, labels: int, weights: Mapping[str, Tensor], where: str
) -> nn.Module:
    """A checkpoint as danlu's encoder, which reads the codes of the file's tokenizer. `kind` is one
    of TASKS' values, `labels` the number of classes.

    Raises DataError where a tensor is missing or the network has a part that danlu's encoder does
    not have.
    """
    weights = {_current_name(name): tensor for name, tensor in weights.items()}
    sizes = _sizes(config, where)
    size, width = int(config["vocab_size"]), sizes.width
    with torch.random.fork_rng(devices=[]):
        body = WordEmbedding((size,), (), width, letter_size=1, filters=1, unknown=0.0)
        encoder = Encoder(
            Reader(["tokens"], [body], 0.0),
            width,
            sizes,
            context=int(config["max_position_embeddings"]),
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
    parts = _parts_of(module)
    assert parts is not None and encoder.positions is not None
    task = next(name for name, ending in TASKS.items() if ending == kind)
    with torch.no_grad():
        _put(parts.words.weight, "bert.embeddings.word_embeddings.weight", weights, where)
        _put(encoder.positions.weight, "bert.embeddings.position_embeddings.weight", weights, where)
        types = weights.get("bert.embeddings.token_type_embeddings.weight")
        if types is not None:
            encoder.positions.weight.add_(types[0])
        for theirs, layer in _layers(parts, task).items():
            for name, parameter in layer.named_parameters():
                _put(parameter, f"{theirs}.{name}", weights, where)
        if parts.head is not None:
            decoder = "cls.predictions.decoder.weight"
            tied = decoder not in weights and config.get("tie_word_embeddings", True)
            _put(
                parts.last.weight,
                "bert.embeddings.word_embeddings.weight" if tied else decoder,
                weights,
                where,
            )
            _put(parts.last.bias, "cls.predictions.bias", weights, where)
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = float(config.get("layer_norm_eps", 1e-12))
    return module.eval()


def _current_name(name: str) -> str:
    """The name that current versions of transformers give a tensor of an old checkpoint."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _put(parameter: Tensor, name: str, weights: Mapping[str, Tensor], where: str) -> None:
    stored = weights.get(name)
    if stored is None or stored.shape != parameter.shape or not stored.is_floating_point():
        difference = (
            "is missing"
            if stored is None
            else f"has shape {list(stored.shape)}, not {list(parameter.shape)}"
            if stored.shape != parameter.shape
            else f"is of type {str(stored.dtype).removeprefix('torch.')}, not of floating point"
        )
        raise DataError(
            f"the tensor {name} {difference}.",
            where=where,
            hint="give the whole checkpoint of a BERT, with its head",
        )
    parameter.copy_(stored)


def _sizes(config: BertConfig, where: str) -> StackSizes:
    odd = {
        "hidden_act is gelu": config.get("hidden_act", "gelu") != "gelu",
        "position_embedding_type is absolute": config.get("position_embedding_type", "absolute")
        not in ("absolute", None),
        "it is not a decoder": bool(config.get("is_decoder"))
        or bool(config.get("add_cross_attention")),
        f"pad_token_id is {PADDING}": int(config.get("pad_token_id") or 0) != PADDING,
    }
    broken = [rule for rule, wrong in odd.items() if wrong]
    if broken:
        raise DataError(
            f"danlu's encoder is this network only if {' and '.join(broken)}.",
            where=where,
            hint="use it as it is: model: pretrained",
        )
    return StackSizes(
        num_layers=int(config["num_hidden_layers"]),
        width=int(config["hidden_size"]),
        num_heads=int(config["num_attention_heads"]),
        feed_forward="gelu",
        feed_forward_width=int(config["intermediate_size"]),
        normalization="layer",
        bias=True,
        norm_first=False,
    )
