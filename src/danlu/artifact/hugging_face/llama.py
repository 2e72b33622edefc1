"""danlu's gpt and the Llama of transformers: the same network with other names for its tensors.

V is the size of the vocabulary, D the width.
Source: modeling_llama.py of transformers 5; Touvron et al., 2023, arXiv:2302.13971.
"""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Required, TypedDict, cast

import numpy as np
import torch
from torch import Tensor, nn

from danlu.errors import ArtifactError, DataError
from danlu.layers.normalization import EPSILON
from danlu.layers.parametrization import Readout
from danlu.layers.tensors import from_array
from danlu.layers.transformer.blocks import Block, StackSizes
from danlu.layers.transformer.language_model import LanguageModel
from danlu.recipe import Options
from danlu.terms import END, PADDING

NEEDED = {
    "positions": "rotary",
    "normalization": "rms",
    "feed_forward": "swiglu",
    "qk_norm": False,
    "bias": False,
}
_LAYER = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}


class RopeParameters(TypedDict, total=False):
    """The rotary positions of a Llama, as its config.json describes them."""

    rope_type: str
    rope_theta: float


class LlamaConfig(TypedDict, total=False):
    """What is read of a Llama's config.json; names and meanings are those of transformers."""

    model_type: str
    vocab_size: Required[int]
    hidden_size: Required[int]
    intermediate_size: Required[int]
    num_hidden_layers: Required[int]
    num_attention_heads: Required[int]
    num_key_value_heads: int | None
    head_dim: int | None
    hidden_act: str
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: RopeParameters | None
    rope_scaling: Mapping[str, object] | None
    rope_theta: float
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool


def refuse_others(options: Options, where: str) -> None:
    """Raise ArtifactError for options of a gpt that a Llama does not have, and name them."""
    own_values = options.model_dump()
    names = [name for name, value in NEEDED.items() if own_values[name] != value]
    if names:
        own = ", ".join(f"{name}: {own_values[name]}" for name in names)
        odd = [f"{name}: {NEEDED[name]}" for name in names]
        raise ArtifactError(
            f"this gpt is not built like a Llama ({own}), and Hugging Face has no other network "
            "that it fits.",
            where=where,
            hint=f"train one with {', '.join(odd).replace('False', 'false')}",
        )


def config(
    module: LanguageModel, context: int, size: int, codes: Mapping[int, int]
) -> dict[str, object]:
    """The content of config.json. `size` is the number of tokens in the file, `codes` maps danlu's
    codes of END and PADDING to those of the file."""
    block = cast("Block", module.stack.blocks[0])
    attention, feed_forward, rotary = block.attention, block.feed_forward, module.stack.rotary
    assert rotary is not None
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size,
        "hidden_size": module.embedding.embedding_dim,
        "intermediate_size": feed_forward.up.out_features,
        "num_hidden_layers": len(module.stack.blocks),
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_key_value_heads,
        "head_dim": attention.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "rms_norm_eps": EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": rotary.theta},
        "rope_theta": rotary.theta,  # as versions before 5 read it
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": module.head is None,
        "bos_token_id": codes[END],  # a text begins where another ends, in training too
        "eos_token_id": codes[END],
        "pad_token_id": codes.get(PADDING),
        "dtype": "float32",
    }


def tensors(module: LanguageModel, rows: np.ndarray) -> dict[str, Tensor]:
    """The tensors of model.safetensors. `rows` int64 (V of the file,) holds, for each code of the
    file, danlu's code of the same token, or -1."""
    norm = module.stack.norm.weight * module.tied_multiplier  # type: ignore[operator]
    named_tensors = {
        "model.embed_tokens.weight": _chosen(module.embedding.weight, rows),
        "model.norm.weight": norm,
    }
    for number, block in enumerate(cast("list[Block]", list(module.stack.blocks))):
        # a Llama has no multipliers: those of a muP model are multiplied into the weights
        factors = {
            "attention.query": block.attention.sharpness,
            "attention.output": block.branch,
            "feed_forward.down": block.branch,
        }
        for ours, theirs in _LAYER.items():
            weight = block.get_submodule(ours).weight
            named_tensors[f"model.layers.{number}.{theirs}.weight"] = weight * factors.get(
                ours, 1.0
            )  # type: ignore[operator]
    if module.head is not None:
        multiplier = module.head.multiplier if isinstance(module.head, Readout) else 1.0
        named_tensors["lm_head.weight"] = _chosen(module.head.weight * multiplier, rows)
    return {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in named_tensors.items()
    }  # type: ignore[union-attr]


def _chosen(weight_VD: Tensor, rows: np.ndarray) -> Tensor:
    chosen = weight_VD.detach().cpu()[from_array(np.maximum(rows, 0))]
    return chosen.masked_fill(from_array(rows < 0)[:, None], 0.0)


def module_of(config: LlamaConfig, weights: Mapping[str, Tensor], where: str) -> LanguageModel:
    """A checkpoint as danlu's gpt, which reads the codes of the file's tokenizer. Raises DataError
    where a tensor is missing or the network has a part that danlu's gpt does not have."""
    sizes, theta = _sizes(config, where)
    tied = bool(config.get("tie_word_embeddings", False))
    context = int(config.get("max_position_embeddings", 2048))
    with torch.random.fork_rng(devices=[]):
        model = LanguageModel(
            "tokens",
            int(config["vocab_size"]),
            sizes,
            rotary=True,
            context=context,
            tied=tied,
            theta=theta,
        )
    wanted = {"model.embed_tokens": model.embedding, "model.norm": model.stack.norm}
    for number, block in enumerate(model.stack.blocks):
        wanted |= {
            f"model.layers.{number}.{theirs}": block.get_submodule(ours)
            for ours, theirs in _LAYER.items()
        }
    if model.head is not None:
        wanted["lm_head"] = model.head
    with torch.no_grad():
        for name, layer in wanted.items():
            _put(layer, f"{name}.weight", weights, where)
    return model.eval()


def _put(layer: nn.Module, name: str, weights: Mapping[str, Tensor], where: str) -> None:
    stored, weight = weights.get(name), layer.weight
    assert isinstance(weight, Tensor)
    if stored is None or stored.shape != weight.shape or not stored.is_floating_point():
        difference = (
            "is missing"
            if stored is None
            else f"has shape {list(stored.shape)}, not {list(weight.shape)}"
            if stored.shape != weight.shape
            else f"is of type {str(stored.dtype).removeprefix('torch.')}, not of floating point"
        )
        raise DataError(
            f"the tensor {name} {difference}.",
            where=where,
            hint="give the whole checkpoint of a Llama",
        )
    weight.copy_(stored)


def _sizes(config: LlamaConfig, where: str) -> tuple[StackSizes, float]:
    rope: RopeParameters = config.get("rope_parameters") or {}
    scaled = rope.get("rope_type", "default") != "default" or bool(config.get("rope_scaling"))
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    odd = {
        "model_type is llama": config.get("model_type") != "llama",
        "rope_scaling is off": scaled,
        "attention_bias and mlp_bias are false": bool(config.get("attention_bias"))
        or bool(config.get("mlp_bias")),
        "hidden_act is silu": config.get("hidden_act", "silu") != "silu",
        f"rms_norm_eps is {EPSILON}": config.get("rms_norm_eps", 1e-6) != EPSILON,
        "head_dim times num_attention_heads is hidden_size": int(
            config.get("head_dim") or width // heads
        )
        * heads
        != width,
    }
    broken = [rule for rule, wrong in odd.items() if wrong]
    if broken:
        raise DataError(
            f"danlu's gpt is this network only if {' and '.join(broken)}.",
            where=where,
            hint="use it as it is: model: pretrained",
        )
    sizes = StackSizes(
        num_layers=int(config["num_hidden_layers"]),
        width=width,
        num_heads=heads,
        num_key_value_heads=int(config.get("num_key_value_heads") or heads),
        feed_forward="swiglu",
        feed_forward_width=int(config["intermediate_size"]),
        normalization="rms",
    )
    return sizes, float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))
