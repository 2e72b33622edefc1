"""A network of danlu as Keras lays it out: equal outputs for every layer it is built of; what has no counterpart is named."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import nn

from danlu import registry
from danlu.errors import PartError
from danlu.recipe import Part
from danlu.terms import InputSpec, OutputSpec

if importlib.util.find_spec("keras") is None:
    pytest.skip("keras is not installed: pip install 'danlu[keras]'", allow_module_level=True)

from danlu.exporting.exporters._to_keras import to_keras

OUTPUT = OutputSpec(3, ("a", "b", "c"))
PLACES = OutputSpec(4, ("a", "b", "c", "d"), per="token")
NUMBERS = {"numbers": InputSpec("numbers", (7,), names=tuple("abcdefg"))}
CATEGORIES = {
    "categories": InputSpec("categories", (3,), names=("x", "y", "z"), cardinalities=(2, 11, 40))
}
IMAGE = {"image": InputSpec("image", (3, 13, 17), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))}
TOKENS = {"tokens": InputSpec("tokens", (9,), cardinalities=(23,))}
CODES = {"tokens": InputSpec("tokens", (9, 2), cardinalities=(23, 9))}
SERIES = {"series": InputSpec("series", (8, 3), names=("u", "v", "w"))}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, InputSpec], OutputSpec]] = {
    "linear, numbers": ("linear", {}, NUMBERS, OUTPUT),
    "linear, all": ("linear", {}, {**NUMBERS, **CATEGORIES, **IMAGE}, OUTPUT),
    "linear, categories": ("linear", {}, CATEGORIES, OUTPUT),
    "mlp, batch norm": (
        "mlp",
        {"hidden": [6, 5], "batch_norm": True, "activation": "gelu"},
        {**NUMBERS, **CATEGORIES},
        OUTPUT,
    ),
    "mlp, layer norm": (
        "mlp",
        {"hidden": [6], "layer_norm": True, "activation": "silu", "embedding": 3},
        CATEGORIES,
        OUTPUT,
    ),
    "mlp, periodic": ("mlp", {"hidden": [6], "periodic": 4, "activation": "tanh"}, NUMBERS, OUTPUT),
    "mlp, image": ("mlp", {"hidden": [6]}, IMAGE, OUTPUT),
    "mlp, text": ("mlp", {"hidden": [6]}, {**NUMBERS, **TOKENS}, OUTPUT),
    "mlp, mup": (
        "mlp",
        {"hidden": [16], "parametrization": "mup", "base_width": 8},
        NUMBERS,
        OUTPUT,
    ),
    "cnn, residual": ("cnn", {"width": 4}, IMAGE, OUTPUT),
    "cnn, large": (
        "cnn",
        {"width": 3, "blocks": [1, 1], "activation": "gelu"},
        {"image": InputSpec("image", (1, 65, 66))},
        OUTPUT,
    ),
    "cnn, no norm": (
        "cnn",
        {"width": 4, "batch_norm": False, "activation": "silu", "blocks": [2, 1]},
        IMAGE,
        OUTPUT,
    ),
    "cnn, mup": (
        "cnn",
        {"width": 8, "parametrization": "mup", "base_width": 4, "base_layers": 1},
        IMAGE,
        OUTPUT,
    ),
    "cnn, textbook": ("cnn", {"design": "textbook"}, {**IMAGE, **NUMBERS, **CATEGORIES}, OUTPUT),
    **{
        f"rnn, {cell}, {how}": (
            "rnn",
            {"cell": cell, "width": 5, "embedding": 4, "pooling": how, "num_layers": 2},
            TOKENS,
            OUTPUT,
        )
        for cell, how in (
            ("lstm", "max"),
            ("gru", "last"),
            ("vanilla", "mean"),
            ("lstm", "attention"),
            ("lstm", "last"),
        )
    },
    "rnn, codes": ("rnn", {"width": 5, "embedding": 4}, {**CODES, **NUMBERS}, OUTPUT),
    "rnn, one way": (
        "rnn",
        {"width": 5, "bidirectional": False, "pooling": "last"},
        SERIES,
        OUTPUT,
    ),
    "rnn, places": ("rnn", {"width": 5, "embedding": 4}, TOKENS, PLACES),
}


def network(
    name: str, options: dict[str, Any], inputs: dict[str, InputSpec], output: OutputSpec
) -> nn.Module:
    torch.manual_seed(3)
    config = registry.config("models", name).model_validate(options)
    module = registry.build_model(Part(name, config), inputs, output)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        for moved, buffer in module.named_buffers():
            if "running" in moved:
                buffer.add_(torch.rand(buffer.shape))
    return module.eval()


def rows(
    inputs: dict[str, InputSpec], count: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(what danlu's module receives, what a program receives: pixels as bytes, channels last)."""
    ours, theirs = {}, {}
    for name, each in inputs.items():
        if each.kind == "image":
            theirs[name] = torch.randint(
                0, 256, (count, *each.shape[1:], each.shape[0]), dtype=torch.uint8
            )
            pixels = theirs[name].permute(0, 3, 1, 2) / 255
            ours[name] = (pixels - torch.tensor(each.mean)[:, None, None]) / torch.tensor(each.std)[
                :, None, None
            ]
            continue
        if each.kind == "tokens":
            inside = (
                torch.arange(each.shape[0])
                < torch.arange(1, count + 1).clamp(max=each.shape[0])[:, None]
            )
            codes = (
                torch.stack(
                    [torch.randint(1, size, (count, each.shape[0])) for size in each.cardinalities],
                    -1,
                )
                * inside[..., None]
            )
            ours[name] = codes if len(each.shape) > 1 else codes[..., 0]
        elif each.kind == "categories":
            ours[name] = torch.stack(
                [torch.randint(0, size, (count,)) for size in each.cardinalities], dim=1
            )
        else:
            ours[name] = torch.randn(count, *each.shape)
        theirs[name] = ours[name]
    return ours, theirs


@pytest.mark.parametrize("case", CASES)
def test_the_twin_gives_what_the_network_gives(case) -> None:
    name, options, inputs, output = CASES[case]
    module = network(name, options, inputs, output)
    model = to_keras(module, inputs, lambda keras, found: found)
    ours, theirs = rows(inputs, 12)
    with torch.no_grad():
        wanted, found = module(ours), model([theirs[each] for each in inputs], training=False)
    if output.per == "token":  # nothing is promised of places after a row's end
        inside = (ours["tokens"] != 0)[..., None]
        wanted, found = wanted * inside, found * inside
    # 1e-4: float32, sums in another order; the promise of an export
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_has_no_counterpart_is_named() -> None:
    for name, options, inputs, output in (
        ("rnn", {}, {"frames": InputSpec("frames", (9, 3))}, OUTPUT),
        ("rnn", {"crf": True}, TOKENS, PLACES),
        (
            "rnn",
            {},
            {
                "tokens": InputSpec(
                    "tokens", (9, 3), names=("word", "letter", "letter"), cardinalities=(23, 9, 9)
                )
            },
            OUTPUT,
        ),
        ("ft_transformer", {}, NUMBERS, OUTPUT),
    ):
        with pytest.raises(PartError, match=r"counterpart|no input"):
            to_keras(network(name, options, inputs, output), inputs, lambda keras, found: found)


def test_a_compressed_layer_is_not_taken_for_a_plain_one() -> None:
    class Coarse(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).round()

    module = network("mlp", {"hidden": [6]}, NUMBERS, OUTPUT)
    module[1].__class__ = Coarse  # type: ignore[index]
    with pytest.raises(PartError, match="Coarse"):
        to_keras(module, NUMBERS, lambda keras, found: found)
