"""The network that a checkpoint's config describes, built by the library transformers.

Its sizes are compared with the stored weights before any memory is allocated: the network is first
built without numbers (on torch's meta device)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danlu.errors import DataError, PartError
from danlu.reading.hugging_face_config import SIZES, check_layers, checked_config
from danlu.reading.safetensors_header import FLOATS, StoredTensor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.terms import OutputSpec

_CLASSES = ("SequenceClassification", "TokenClassification", "ImageClassification")
_UNPACKED, _BESIDE = 4, 256 << 20  # bytes of the network for each byte of its weights, and beside
_FLOAT32 = 4


@dataclass(frozen=True)
class StoredWeights:
    """The weights that a network is built for.

    where     what messages call them
    most      the bytes that the network may take
    tensors   by name; empty where only their size is known
    """

    where: str
    most: int
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def of(cls, tensors: Mapping[str, StoredTensor], where: str) -> StoredWeights:
        """The weights of a checkpoint."""
        numbers = sum(tensor.numbers for tensor in tensors.values())
        return cls(where, _UNPACKED * _FLOAT32 * numbers + _BESIDE, tensors)


def build_body(
    config: Mapping[str, Any],
    kind: str,
    output: OutputSpec,
    where: str,
    stored: StoredWeights | None,
) -> nn.Module:
    """The network of a config.json with random weights and an output of this size; `kind` is the
    end of a class of transformers (SequenceClassification, CausalLM, ...).

    Raises DataError naming the key that no network can have, or the tensor of `stored` that has
    another shape; PartError where transformers builds no such network. Messages call the config
    `where`."""
    import torch

    checked = checked_config(config, where)
    if stored is not None:
        if stored.tensors:
            check_layers(checked, len(stored.tensors), where)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            _refuse_others(_from_config(checked, kind, output), checked, where, stored)
    return _from_config(checked, kind, output)


def _from_config(checked: Mapping[str, Any], kind: str, output: OutputSpec) -> nn.Module:
    from danlu.layers.pretrained.network import library, quiet_transformers

    transformers = library()
    with quiet_transformers():
        try:
            config = transformers.AutoConfig.for_model(**checked)
            if kind in _CLASSES:
                config.num_labels = output.size
            config.use_cache = False
            # where a family has several networks of a kind (DeiT), the first is used
            config.architectures = []
            return getattr(transformers, f"AutoModelFor{kind}").from_config(config).float()
        except MemoryError:
            raise
        except Exception as error:  # what a config can do to transformers has no list of types
            cause = str(error).strip().split("\n")[0][:300].rstrip(".")
            raise PartError(
                f"the checkpoint's config makes no network for {kind}: "
                f"{cause or type(error).__name__}."
            ) from None


def _refuse_others(
    network: nn.Module, config: Mapping[str, Any], where: str, stored: StoredWeights
) -> None:
    """Raise DataError where a network without numbers is larger than its weights allow, or a tensor
    has another shape or type there."""
    from danlu.layers.pretrained.network import ONE_CHECKPOINT, is_head

    tensors = [*network.parameters(), *network.buffers()]
    wanted = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if wanted > stored.most:
        raise DataError(
            f"it describes a network of {wanted:,} bytes, and its weights allow {stored.most:,} "
            f"({_largest(config)}).",
            where=where,
            hint=ONE_CHECKPOINT,
        )
    names = _names_in(stored.tensors, str(getattr(network, "base_model_prefix", "")))
    for name, tensor in network.state_dict().items():
        found = names.get(name)
        if found is None:
            continue
        if tensor.is_floating_point() and found.dtype not in FLOATS:
            raise DataError(
                f"the tensor {name} is of type {found.dtype}, and danlu trains plain weights "
                f"({', '.join(FLOATS)}).",
                where=stored.where,
                hint="give the original checkpoint",
            )
        if tuple(tensor.shape) != found.shape and not is_head(name):
            raise DataError(
                f"it describes {name} with the shape {list(tensor.shape)}"
                f"{_named(config, tensor, found)}, and the weights have {list(found.shape)}.",
                where=where,
                hint=ONE_CHECKPOINT,
            )


def _names_in(tensors: Mapping[str, StoredTensor], prefix: str) -> dict[str, StoredTensor]:
    """The stored tensors under every name that transformers finds them by: a checkpoint may hold
    the body alone, and older ones call a norm's weight gamma."""
    names: dict[str, StoredTensor] = {}
    for stored_name, tensor in tensors.items():
        name = stored_name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        names[name] = tensor
        names.setdefault(f"{prefix}.{name}", tensor)
        names.setdefault(name.removeprefix(f"{prefix}."), tensor)
    return names


def _named(config: Mapping[str, Any], tensor: Tensor, stored: StoredTensor) -> str:
    """The keys of the config from which an odd size comes, for a message; "" where none is it."""
    odd = {*tensor.shape} - {*stored.shape}
    keys = [f"{key} is {config[key]:,}" for key in SIZES if config.get(key) in odd]
    return f" ({', '.join(keys)})" if keys else ""


def _largest(config: Mapping[str, Any]) -> str:
    """The largest sizes of a config, for a message."""
    sizes = sorted(((config[key], key) for key in SIZES if config.get(key)), reverse=True)
    return ", ".join(f"{key} is {size:,}" for size, key in sizes[:3])


__all__ = ["StoredWeights", "build_body"]
