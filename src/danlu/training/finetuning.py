"""Fine-tuning: which weights of a model are trained, at which learning rates, and LoRA (section
finetune).

Names are those of the model's parameters, with * for anything: embeddings.*, *.bias. `danlu train`
says what is trained; a pattern that matches no name is an error that lists the names."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# torch gives the base of all batch normalizations a private name only.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import cast

from torch import Tensor, nn

from danlu.errors import RunError
from danlu.layers.quantization.nf4 import parameter_count, quantized_bytes
from danlu.recipe import FineTune
from danlu.training.lora import adaptable_layers, add_lora, merge_lora, quantize_base

_LISTED = 12


def prepare_finetuning(module: nn.Module, finetune: FineTune, fresh: Sequence[str] | None) -> str:
    """Change a module in place as section finetune asks; a sentence about what is trained, ""
    where the section is empty.

    `fresh` names the tensors that were initialized at random although the model starts from
    pretrained weights; None where all were. Raises RunError for a pattern that matches no
    parameter, and where nothing is left to train."""
    if finetune == FineTune():
        return ""
    sentence = ""
    if finetune.lora is not None:
        if fresh is None:
            raise RunError(
                "finetune.lora adds low-rank matrices to pretrained weights, and this model has "
                "none.",
                hint="set model.weights (an artifact), or choose model: pretrained",
            )
        targets, new = _targets(module, finetune.lora.targets), set(fresh)
        if finetune.lora.base != "float32":
            quantize_base(
                module, _frozen_layers(module, targets, new, finetune.thaw), finetune.lora.base
            )
        add_lora(module, targets, finetune.lora.rank, finetune.lora.alpha, finetune.lora.dropout)
        sentence = (
            f": low-rank matrices of rank {finetune.lora.rank} in {len(targets)} layers, and what "
            f"was initialized at random{_storage_note(module, finetune)}"
        )
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in new or ".low_rank_" in name)
    _set_requires_grad(module, finetune.freeze, False, "finetune.freeze")
    _set_requires_grad(module, finetune.thaw, True, "finetune.thaw")
    _freeze_norm_statistics(module)
    total = parameter_count(module)
    trained = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    if not trained:
        raise RunError(
            "section finetune leaves no weight to train.",
            hint="freeze less, or name weights under finetune.thaw",
        )
    return (
        f"{trained:,} of {total:,} weights are trained ({100 * trained / total:.3g} %){sentence}."
    )


def _frozen_layers(
    module: nn.Module, targets: Sequence[str], fresh: set[str], thaw: Sequence[str]
) -> list[str]:
    """The layers whose matrices are not trained: those with low-rank matrices, and all others
    inside the model's blocks."""
    blocks, layers = _blocks(module), adaptable_layers(module)
    inside = {
        name for name in layers if any(name.startswith(f"{block}.") for block in blocks)
    } | set(targets)
    named = dict(module.named_parameters(remove_duplicate=False))
    holders = Counter(id(weight_tensor) for weight_tensor in named.values())
    thawed = {name for pattern in thaw for name in _matching(named, pattern, "finetune.thaw")}
    weights = {name: f"{name}.weight" for name in layers if name in inside}
    return [
        name
        for name, weight in weights.items()
        if weight not in fresh | thawed and holders[id(named[weight])] == 1
    ]


def _storage_note(module: nn.Module, finetune: FineTune) -> str:
    """A note on the memory of quantized matrices; "" where there are none."""
    if finetune.lora is None or finetune.lora.base == "float32":
        return ""
    few, full = quantized_bytes(module)
    return (
        f"; matrices that stay are kept in {finetune.lora.base}: "
        f"{few / 1e6:,.3g} MB in place of {full / 1e6:,.3g}"
    )


def merge_adapters(module: nn.Module) -> None:
    """Add the low-rank matrices to the weights, so that the model that is scored, released and
    served is a plain one."""
    merge_lora(module)


def learning_rate_shares(module: nn.Module, finetune: FineTune) -> dict[Tensor, float]:
    """The factor on the learning rate of each parameter, where it is not 1."""
    named = dict(module.named_parameters())
    depths, top = _depths(module, named) if finetune.layer_decay < 1 else ({}, 0)
    shares = {
        parameter: finetune.layer_decay ** (top - depths.get(name, top))
        for name, parameter in named.items()
    }
    for pattern, share in finetune.rates.items():
        for name in _matching(named, pattern, "finetune.rates"):
            shares[named[name]] *= share
    return {parameter: share for parameter, share in shares.items() if share != 1.0}


def split_by_rate(
    groups: Iterable[Mapping[str, object]], shares: Mapping[Tensor, float]
) -> list[dict[str, object]]:
    """The parameter groups, each divided by the factor on the learning rate of its parameters; the
    factor is the group's "learning_rate_scale"."""
    result: list[dict[str, object]] = []
    for group in groups:
        by_share: dict[float, list[Tensor]] = {}
        # "params" of a group is always its parameters, as torch.optim defines it
        for parameter in cast("Iterable[Tensor]", group["params"]):
            by_share.setdefault(shares.get(parameter, 1.0), []).append(parameter)
        for share, parameters in sorted(by_share.items()):
            scale = {} if share == 1.0 else {"learning_rate_scale": share}
            result.append({**group, "params": parameters, **scale})
    return result


def _set_requires_grad(module: nn.Module, patterns: Sequence[str], moves: bool, where: str) -> None:
    named = dict(module.named_parameters())
    for pattern in patterns:
        for name in _matching(named, pattern, where):
            named[name].requires_grad_(moves)


def _matching(names: Iterable[str], pattern: str, where: str) -> list[str]:
    """The names that a pattern matches, as a whole or from one of their dots on. Raises RunError
    where there is none."""
    names = list(names)
    matching = [
        name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
    ]
    if not matching:
        heads = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
        listed = ", ".join(heads[:_LISTED]) + (
            f" and {len(heads) - _LISTED} more" if len(heads) > _LISTED else ""
        )
        raise RunError(
            f"{where} names {pattern}, and the model has no such name.",
            hint=f"names begin with {listed}",
        )
    return matching


def _targets(module: nn.Module, patterns: Sequence[str] | None) -> list[str]:
    """The layers that get low-rank matrices: those named, else all inside the model's repeated
    blocks."""
    layers = list(adaptable_layers(module))
    if patterns is not None:
        return list(
            dict.fromkeys(
                name
                for pattern in patterns
                for name in _matching(layers, pattern, "finetune.lora.targets")
            )
        )
    blocks = _blocks(module)
    layers_in_blocks = [
        name for name in layers if any(name.startswith(f"{block}.") for block in blocks)
    ]
    if not layers_in_blocks:
        raise RunError(
            "finetune.lora finds no linear layer inside repeated blocks of this model.",
            hint=f"name layers: finetune.lora.targets: [{', '.join(layers[:3])}]"
            if layers
            else "it has no linear layer",
        )
    return layers_in_blocks


def _blocks(module: nn.Module) -> list[str]:
    """The names of the lists of repeated blocks: the one with the most parameters, and those of the
    same length beside it."""
    lists: dict[str, nn.ModuleList] = {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList) and len(child) > 0
    }
    outer = {
        name: child
        for name, child in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists if other != name)
    }
    if not outer:
        return []
    sizes = {
        name: sum(child.numel() for child in blocks.parameters()) for name, blocks in outer.items()
    }
    largest = max(sizes, key=lambda name: sizes[name])
    return [name for name in outer if len(outer[name]) == len(outer[largest])]


def _depths(module: nn.Module, named: Mapping[str, Tensor]) -> tuple[dict[str, int], int]:
    """(the depth of each parameter: 0 before the blocks, 1, 2, ... inside them, the largest after
    them; the largest depth)."""
    blocks = _blocks(module)
    if not blocks:
        raise RunError(
            "finetune.layer_decay needs a model with a list of blocks, and this one has none.",
            hint="use finetune.rates",
        )
    top = len(module.get_submodule(blocks[0])) + 1  # type: ignore[arg-type]
    depths: dict[str, int] = {}
    reached = False
    for name in named:
        block = next((candidate for candidate in blocks if name.startswith(f"{candidate}.")), None)
        reached = reached or block is not None
        depths[name] = (
            int(name[len(block) + 1 :].split(".")[0]) + 1
            if block is not None
            else top
            if reached
            else 0
        )
    return depths, top


def _freeze_norm_statistics(module: nn.Module) -> None:
    """Keep a frozen batch normalization in evaluation mode: its statistics belong to the pretrained
    weights around it."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            weights = list(layer.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                layer.eval()
                layer.train = lambda mode=True, layer=layer: nn.Module.train(layer, False)  # type: ignore[method-assign, assignment, misc]
