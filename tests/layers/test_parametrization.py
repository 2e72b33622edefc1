"""muP: what is drawn, how fast it learns and what it is multiplied by, for every model that has a width and every optimizer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import make
from danlu import registry
from danlu.artifact.hugging_face import llama
from danlu.errors import PartError, RecipeError
from danlu.layers.attention.multi_head import Attention
from danlu.layers.parametrization import Readout, multipliers, scale_groups
from danlu.layers.transformer.blocks import Block
from danlu.recipe import Part, read
from danlu.terms import InputSpec, OutputSpec
from danlu.training.setup import groups_over

WITH_A_WIDTH = [
    name for name in registry.names("models") if hasattr(registry.facts("models", name), "at_width")
]
INPUTS = {
    "mlp": {
        "numbers": InputSpec("numbers", (7,)),
        "categories": InputSpec("categories", (2,), cardinalities=(3, 40)),
    },
    "cnn": {"image": InputSpec("image", (3, 13, 17))},
    "gpt": {"tokens": InputSpec("tokens", (11,), cardinalities=(23,))},
    "encoder": {
        "tokens": InputSpec("tokens", (11, 4), cardinalities=(23, 9, 9, 9)),
        "numbers": InputSpec("numbers", (3,)),
    },
}
OUTPUTS = {"gpt": OutputSpec(23, per="token", causal=True)}
# What a model is built with here; a new part that offers at_width needs an entry in INPUTS alone.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "mlp": [{"hidden": [48, 24]}, {"hidden": [48], "batch_norm": True}],
    "cnn": [{"width": 12, "blocks": [1, 2]}, {"width": 12, "batch_norm": False}],
    "gpt": [
        {"width": 48, "num_heads": 2, "num_layers": 2},
        {"width": 48, "num_heads": 2, "tied": True, "positions": "learned"},
    ],
    "encoder": [
        {"width": 48, "num_heads": 2},
        {"width": 48, "num_heads": 2, "pooling": "attention", "positions": "learned"},
    ],
}
CASES = [
    pytest.param(name, options, id=f"{name}-{at}")
    for name in WITH_A_WIDTH
    for at, options in enumerate(OPTIONS.get(name, [{}]))
]


def build(name: str, seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    part = Part(name, registry.config("models", name)(**options))
    return registry.build_model(part, INPUTS[name], OUTPUTS.get(name, OutputSpec(5)))


def batch(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = {}
    for key, each in INPUTS[name].items():
        if each.kind in ("tokens", "categories"):
            found[key] = torch.randint(
                1, min(each.cardinalities), (3, *each.shape), generator=generator
            )
        else:
            found[key] = torch.randn((3, *each.shape), generator=generator)
    return found


def width(name: str, options: dict[str, Any]) -> int:
    return registry.facts("models", name).width_of(registry.config("models", name)(**options))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_at_the_base_width_mup_is_the_standard_bit_for_bit(
    name: str, options: dict[str, Any]
) -> None:
    plain = build(name, **options)
    after = torch.rand(1)
    scaled_one = build(name, **options, parametrization="mup", base_width=width(name, options))
    assert torch.equal(torch.rand(1), after), "the base draws from the generator of the model"
    assert list(plain.state_dict()) == list(scaled_one.state_dict())
    assert all(
        torch.equal(one, other)
        for one, other in zip(plain.state_dict().values(), scaled_one.state_dict().values())
    )
    assert scaled_one.growths == {}
    assert torch.equal(plain.eval()(batch(name)), scaled_one.eval()(batch(name)))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_model_at_another_width_has_that_width(name: str, options: dict[str, Any]) -> None:
    part = registry.facts("models", name)
    config = part.Config(**options)
    assert part.width_of(part.at_width(config, 2 * part.width_of(config))) == 2 * part.width_of(
        config
    )
    assert (
        part.at_width(config, part.width_of(config)).model_dump() | options == config.model_dump()
    )


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_wide_model_starts_as_its_base_but_for_hidden_matrices_that_start_smaller(
    name: str, options: dict[str, Any]
) -> None:
    part = registry.facts("models", name)
    base_width, wide_width = width(name, options), 4 * width(name, options)
    wide_options = part.at_width(part.Config(**options), wide_width).model_dump() | {
        "parametrization": "mup",
        "base_width": base_width,
    }
    wide = dict(build(name, **wide_options).named_parameters())
    base = dict(build(name, 1, **options).named_parameters())
    growths = build(name, **wide_options).growths
    checked = 0
    for key, weight in wide.items():
        if weight.ndim < 2 or base[key].numel() < 400 or "table" in key:
            continue
        expected = growths[key].spread if key in growths else 1.0
        # two samples of at least 400 numbers: their standard deviations differ by 5 % at one sigma
        assert float((weight.std() / base[key].std() / expected).detach()) == pytest.approx(
            1.0, abs=0.2
        ), key
        checked += 1
    assert checked


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_grows_to_what_does_not_is_a_readout_that_divides_by_its_growth(
    name: str, options: dict[str, Any]
) -> None:
    module = build(name, **options, parametrization="mup", base_width=width(name, options) // 4 * 2)
    plain = dict(build(name, **options).named_modules())
    readouts = {key: layer for key, layer in module.named_modules() if isinstance(layer, Readout)}
    assert readouts or options.get("tied")
    for key, layer in readouts.items():
        growth = module.growths[f"{key}.weight"]
        assert growth.multiplier == pytest.approx(1 / growth.inputs)
        assert getattr(plain[key], "TABLES", ()) == layer.TABLES
        x = torch.randn(2, layer.in_features)
        bias = 0.0 if layer.bias is None else layer.bias
        assert torch.allclose(layer(x), x @ layer.weight.T * growth.multiplier + bias, atol=1e-5)


def test_the_factors_of_an_mlp_are_those_of_the_paper() -> None:
    # Yang et al., 2022, table 8, for four times the width
    growths = build("mlp", hidden=[64, 64], parametrization="mup", base_width=16).growths
    first, hidden, last = (growths[f"{at}.weight"] for at in (1, 4, 7))
    assert [each.learning_rate("gradient") for each in (first, hidden, last)] == [4.0, 1.0, 4.0]
    assert [each.learning_rate("entry") for each in (first, hidden, last)] == [1.0, 0.25, 1.0]
    assert [each.spread for each in (first, hidden, last)] == [1.0, 0.5, 1.0]
    assert last.multiplier == 0.25
    assert growths["1.bias"].learning_rate("gradient") == 4.0
    assert growths["1.bias"].learning_rate("entry") == 1.0


@pytest.mark.parametrize("tied", [False, True])
def test_attention_and_a_tied_head_divide_by_the_width(tied: bool) -> None:
    module = build("gpt", width=64, num_heads=2, base_width=16, parametrization="mup", tied=tied)
    attentions = [layer for layer in module.modules() if isinstance(layer, Attention)]
    assert {each.sharpness for each in attentions} == {
        0.5
    }  # heads of 32 against 8: (8 / 32) ** 0.5
    assert module.tied_multiplier == (0.25 if tied else 1.0)
    assert tied or module.head.multiplier == 0.25
    sharp, x = attentions[0], torch.randn(1, 5, 64)
    scores = sharp.scores(x)
    sharp.sharpness = 1.0
    assert torch.allclose(scores, sharp.scores(x) / 2)


def test_depth_scales_what_blocks_add_and_normalised_updates_inside_them() -> None:
    same = build(
        "gpt",
        width=16,
        num_heads=2,
        num_layers=4,
        base_width=16,
        parametrization="mup",
        base_layers=4,
    )
    assert same.growths == {}
    deep = build(
        "gpt",
        width=16,
        num_heads=2,
        num_layers=4,
        base_width=16,
        parametrization="mup",
        base_layers=1,
    )
    assert {layer.branch for layer in deep.modules() if isinstance(layer, Block)} == {0.5}
    inside = deep.growths["stack.blocks.0.attention.query.weight"]
    assert (
        inside.learning_rate("gradient"),
        inside.learning_rate("entry"),
        inside.learning_rate("matrix"),
    ) == (1.0, 0.5, 0.5)
    assert "embedding.weight" not in deep.growths
    cnn = build("cnn", width=8, blocks=[1, 3], base_width=8, parametrization="mup", base_layers=1)
    assert {growth.branch for growth in cnn.growths.values()} == {0.5}
    assert not [name for name in cnn.growths if ".around." in name]


@pytest.mark.parametrize("name", registry.names("optimizers"))
def test_an_optimizer_says_truly_how_long_its_update_is(name: str) -> None:
    module = registry.facts("optimizers", name)
    options = {**module.Config().model_dump(), "learning_rate": 0.01, "weight_decay": 0.0}
    weight = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradient = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def moved(times: float) -> float:
        return float(
            (
                module.update(weight, times * gradient, module.initial(weight), 1, options)[0]
                - weight
            ).norm()
        )

    assert moved(10.0) / moved(1.0) == pytest.approx(
        10.0 if module.UPDATE == "gradient" else 1.0, rel=1e-3
    )  # epsilon: 1e-8 of 1
    if module.UPDATE == "entry":
        return
    doubled = weight.repeat(2, 1), gradient.repeat(2, 1)
    longer = float(
        (
            module.update(doubled[0], doubled[1], module.initial(doubled[0]), 1, options)[0]
            - doubled[0]
        ).norm()
    )
    wanted = (
        2**0.5 if module.UPDATE == "gradient" else (12 / 6) ** 0.5
    )  # of a matrix: by its longer side
    assert longer / moved(1.0) == pytest.approx(
        wanted, rel=0.05
    )  # Newton-Schulz gives singular values only about 1


@pytest.mark.parametrize("name", registry.names("optimizers"))
def test_an_optimizer_says_truly_where_its_weight_decay_acts(name: str) -> None:
    module = registry.facts("optimizers", name)
    options = {**module.Config().model_dump(), "learning_rate": 0.01, "weight_decay": 0.5}
    weight = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    after, _ = module.update(weight, torch.zeros_like(weight), module.initial(weight), 1, options)
    shrunk = torch.allclose(after, weight * (1 - 0.01 * 0.5))
    if module.UPDATE != "gradient":  # there both are the same but for the momentum
        assert shrunk == (getattr(module, "DECAY", "gradient") == "weights")


def recipe(optimizer: dict[str, Any], **model: Any) -> Any:
    tree = make.digits(model={"name": "mlp", **model}, optimizer=optimizer)
    return read(tree, registry)


@pytest.mark.parametrize("name", registry.names("optimizers"))
def test_every_optimizer_takes_the_groups_and_keeps_their_factors(name: str) -> None:
    made = recipe(
        {"name": name, "weight_decay": 0.1}, hidden=[64, 64], parametrization="mup", base_width=16
    )
    module = build("mlp", hidden=[64, 64], parametrization="mup", base_width=16)
    groups = groups_over(module, made)
    assert {id(each) for group in groups for each in group["params"]} == {
        id(each) for each in module.parameters()
    }
    optimizer = registry.build_optimizer(made.optimizer, groups)
    hidden = module.get_submodule("4").weight
    (own,) = [
        group for group in optimizer.param_groups if any(each is hidden for each in group["params"])
    ]
    kind, decay = (
        registry.facts("optimizers", name).UPDATE,
        getattr(registry.facts("optimizers", name), "DECAY", "gradient"),
    )
    rate, shrinking = own.get("learning_rate_scale", 1.0), own.get("weight_decay_scale", 1.0)
    assert rate == {"gradient": 1.0, "entry": 0.25, "matrix": 0.5}[kind]
    assert own["weight_decay"] == pytest.approx(0.1 * shrinking)
    if decay == "weights" or kind == "gradient":
        assert rate * shrinking == pytest.approx(1.0)
    else:
        assert shrinking == 0.5  # the gradient shrinks fourfold, the weights twofold


def test_an_optimizer_that_does_not_say_how_it_moves_is_refused() -> None:
    module = build("mlp", hidden=[64], parametrization="mup", base_width=16)
    groups = [{"params": list(module.parameters())}]
    with pytest.raises(PartError, match="does not say how long its update is"):
        scale_groups(
            groups, module, optimizer="own", update=None, decay="gradient", weight_decay=0.0
        )
    plain = build("mlp", hidden=[64])
    assert scale_groups(
        [{"params": [1]}], plain, optimizer="own", update=None, decay="gradient", weight_decay=0.0
    ) == [{"params": [1]}]


def test_a_base_that_cannot_be_is_refused_when_the_recipe_is_read() -> None:
    with pytest.raises(RecipeError, match="hidden is \\[\\]"):
        recipe({"name": "adam"}, hidden=[], parametrization="mup")
    with pytest.raises(ValueError, match="base_width 100 is no multiple of num_heads 3"):
        registry.config("models", "gpt")(
            width=96, num_heads=3, parametrization="mup", base_width=100
        )


def test_a_llama_written_of_a_mup_model_gives_the_same_logits() -> None:
    import numpy as np

    for tied, base_layers in itertools.product((False, True), (None, 1)):
        options = {
            "qk_norm": False,
            "tied": tied,
            "base_layers": base_layers,
            "num_layers": 2,
            "width": 64,
            "num_heads": 2,
        }
        module = build("gpt", **options, parametrization="mup", base_width=16).eval()
        rows = np.arange(23)
        about = llama.config(module, 32, 23, {0: 0, 1: 1, 2: 2, 3: 3})
        back = llama.module_of(about, llama.tensors(module, rows), "here").eval()
        tokens = batch("gpt")
        mine, theirs = module(tokens), back({"tokens": tokens["tokens"]})
        assert torch.allclose(mine, theirs, atol=1e-5)  # the same products in another order
        assert float(mine.detach().std()) > 0.001


def test_multipliers_tell_apart_models_whose_weights_mean_something_else() -> None:
    plain = build("gpt", width=64, num_heads=2)
    wide = build("gpt", width=64, num_heads=2, parametrization="mup", base_width=16)
    names = list(dict(plain.named_parameters()))
    assert multipliers(plain, names) == set()
    assert ("sharpness", 0.5) in multipliers(wide, names)
    assert ("readout", 0.25) in multipliers(wide, names)
    assert multipliers(wide, ["embedding.weight"]) < multipliers(wide, names)
