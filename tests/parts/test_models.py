"""The promise of the shelf models, held by every file on it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from danlu import registry
from danlu.errors import DanluError, PartError
from danlu.parts.models.cnn import Config as CnnConfig
from danlu.parts.models.mlp import Config as MlpConfig
from danlu.recipe import Options, Part
from danlu.system.trust import allow_code
from danlu.terms import InputSpec, OutputSpec

OUTPUT = OutputSpec(5, ("a", "b", "c", "d", "e"))
NUMBERS = InputSpec("numbers", (7,), names=tuple(f"n{i}" for i in range(7)))
CATEGORIES = InputSpec("categories", (3,), names=("x", "y", "z"), cardinalities=(2, 11, 4))
IMAGE = InputSpec("image", (3, 13, 17))
TOKENS = InputSpec("tokens", (11,), cardinalities=(23,))
SPELT = InputSpec(
    "tokens", (11, 4), cardinalities=(23, 9, 9, 9)
)  # a word and three of its characters
FRAMES = InputSpec("frames", (13, 6), names=tuple(f"f{i}" for i in range(6)))
SERIES = InputSpec("series", (24, 3), names=("u", "v", "w"))
FUTURE = InputSpec("series", (5, 2), names=("holiday", "price"))
SETS = {
    "numbers": {"numbers": NUMBERS},
    "categories": {"categories": CATEGORIES},
    "image": {"image": IMAGE},
    "all": {"numbers": NUMBERS, "categories": CATEGORIES, "image": IMAGE},
    "tokens": {"tokens": TOKENS},
    "spelt": {"tokens": SPELT},
    "aligned": {
        "tokens.words": TOKENS,
        "tokens.tags": InputSpec("tokens", (11,), cardinalities=(9,)),
    },
    "translated": {"tokens": TOKENS, "decoder": InputSpec("tokens", (9,), cardinalities=(23,))},
    "frames": {"frames": FRAMES},
    "series": {"series": SERIES},
    "future": {"series": SERIES, "future": FUTURE},
    "mixed": {"numbers": NUMBERS, "categories": CATEGORIES, "tokens": TOKENS},
}
OUTPUTS = {
    "row": OUTPUT,
    "again": OutputSpec(
        7, NUMBERS.names
    ),  # as many numbers as there are: what an autoencoder gives
    "token": OutputSpec(5, OUTPUT.names, per="token"),
    "vocabulary": OutputSpec(23, per="token", causal=True),
    "step": OutputSpec(3, ("u", "v", "w"), per="step", steps=5, of=("u", "v", "w")),
    "moment": OutputSpec(3, ("u", "v", "w"), per="moment", of=("u", "v", "w")),
    "frame": OutputSpec(6, ("", *OUTPUT.names), per="frame"),
    "image": OutputSpec(3 * 13 * 17, per="image", shape=(3, 13, 17)),
}
# Which sets a form of output can be asked of: what has places, for an output a place; a text's own
# vocabulary, for the next token.
ASKABLE: dict[str, Callable[[str], bool]] = {
    "row": lambda kind: kind != "translated",
    "again": lambda kind: kind == "numbers",
    "token": lambda kind: kind in ("tokens", "spelt", "aligned", "frames", "mixed"),
    "vocabulary": lambda kind: kind in ("tokens", "translated"),
    "step": lambda kind: kind in ("series", "future"),
    "moment": lambda kind: kind == "series",
    "frame": lambda kind: kind == "frames",
    "image": lambda kind: kind == "image",
}
# What a part is built with here, where its defaults are not enough or not small enough. A new part
# needs no entry.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "mlp": [
        {},
        {"hidden": [6, 5], "batch_norm": True, "activation": "gelu"},
        {"hidden": [6], "layer_norm": True, "activation": "silu", "embedding": 3},
        {"hidden": [], "periodic": 4, "activation": "tanh"},
    ],
    "cnn": [
        {"width": 4},
        {"width": 3, "blocks": [2, 1], "activation": "silu", "dropout": 0.5},
        {"width": 4, "batch_norm": False, "activation": "gelu"},
        {"design": "textbook", "dropout": 0.5},
    ],
    "python": [{"object": "a_module_for_tests:AnyInputs", "options": {"width": 6}}],
}
OWN = """
import torch
from torch import nn


class AnyInputs(nn.Module):
    def __init__(self, inputs, output, width):
        super().__init__()
        self.first = nn.ModuleDict({name: nn.LazyLinear(width) for name in inputs})
        self.last = nn.Linear(width, output.size)

    def forward(self, inputs):
        return self.last(sum(self.first[name](each.flatten(1).float()) for name, each in inputs.items()))


class OneTensor(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(7, size)

    def forward(self, x):
        return self.layer(x)


class ByName(OneTensor):
    def forward(self, categories, numbers):
        return self.layer(numbers) + categories.sum()


class Broken(OneTensor):
    def forward(self, x):
        return self.layer(x) @ x


not_a_class = 3


def nothing():
    return "a word"
"""


@pytest.fixture(autouse=True)
def own_code(tmp_path, monkeypatch):
    (tmp_path / "a_module_for_tests.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "a_module_for_tests", raising=False)
    with allow_code():
        yield


def _accepted() -> list[Any]:
    """Every model with every set of inputs and form of output that it takes; it refuses the others
    by name, when it is built."""
    found = []
    for name in registry.names("models"):
        part = registry.facts("models", name)
        for number, options in enumerate(OPTIONS.get(name, [{}])):
            for kind, inputs in SETS.items():
                if not all(each.kind in part.TAKES for each in inputs.values()):
                    continue
                for form, output in OUTPUTS.items():
                    if not ASKABLE[form](kind):
                        continue
                    if output.per in getattr(part, "GIVES", ("row",)) and _builds(
                        name, options, inputs, output
                    ):
                        label = f"{name}-{number}-{kind}" + ("" if form == "row" else f"-{form}")
                        found.append(pytest.param(name, options, inputs, output, id=label))
    return found


def _builds(
    name: str, options: dict[str, Any], inputs: dict[str, InputSpec], output: OutputSpec
) -> bool:
    if name == "python":  # the user's own: it stands in a module that exists only while a test runs
        return output.per == "row"
    try:
        built(name, options, inputs, output=output)
    except PartError:
        return False
    return True


def built(
    name: str,
    options: dict[str, Any],
    inputs: dict[str, InputSpec],
    seed: int = 3,
    output: OutputSpec = OUTPUT,
) -> nn.Module:
    torch.manual_seed(seed)
    config = registry.config("models", name).model_validate(options)
    return registry.build_model(Part(name, config), inputs, output)


CASES = _accepted()
every_case = pytest.mark.parametrize(("name", "options", "inputs", "output"), CASES)


def rows(inputs: dict[str, InputSpec], count: int, seed: int = 5) -> dict[str, torch.Tensor]:
    """A batch; texts and recordings of several lengths, the first as long as any."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    longest = 9 if any(each.kind == "tokens" for each in inputs.values()) else 13
    sizes = torch.randint(1, longest + 1, (count,), generator=generator)
    sizes[0] = longest
    inside = torch.arange(longest) < sizes[:, None]
    for name, each in inputs.items():
        if each.kind == "categories":
            columns = [
                torch.randint(0, size, (count,), generator=generator) for size in each.cardinalities
            ]
            batch[name] = torch.stack(columns, dim=1)
        elif each.kind == "tokens":
            codes = torch.stack(
                [
                    torch.randint(1, size, (count, longest), generator=generator)
                    for size in each.cardinalities
                ],
                -1,
            )
            codes = codes * inside[..., None]
            batch[name] = codes if len(each.shape) > 1 else codes[..., 0]
        elif each.kind == "frames":
            batch[name] = (
                torch.randn(count, longest, each.shape[1], generator=generator) * inside[..., None]
            )
            batch[f"{name}_lengths"] = sizes
        else:
            batch[name] = torch.randn(count, *each.shape, generator=generator)
    return batch


def shape_of(output: OutputSpec, batch: dict[str, torch.Tensor]) -> tuple[int, ...]:
    """The shape of the outputs of a batch; of "frame", as many frames as came in, at most."""
    count = len(next(iter(batch.values())))
    if output.per == "row":
        return (count, output.size)
    if output.per == "step":
        return (count, output.steps, output.size)
    if output.per == "moment":
        return (count, batch["series"].shape[1], output.size)
    if output.per == "image":
        return (count, *output.shape)
    return (count, batch[places_of(batch)].shape[1], output.size)


def places_of(batch: dict[str, torch.Tensor]) -> str:
    """The input whose places are answered."""
    named = [name for name in batch if name == "decoder" or name.startswith(("tokens", "frames"))]
    return "decoder" if "decoder" in named else named[0]


def real(outputs: torch.Tensor, output: OutputSpec, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The outputs, 0 at places after a row's end, of which nothing is promised."""
    if output.per != "token":
        return outputs
    name = places_of(batch)
    if batch[name].is_floating_point():
        inside = torch.arange(outputs.shape[1]) < batch[f"{name}_lengths"][:, None]
    else:
        inside = (batch[name] if batch[name].ndim == 2 else batch[name][..., 0]) != 0
    return outputs * inside[..., None]


def shaken(module: nn.Module) -> nn.Module:
    """The module with all weights moved: what starts at zero keeps others' gradients at zero."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("name", registry.names("models"))
def test_every_model_takes_something_and_gives_all_it_says(name):
    if name in (
        "pretrained",
        "keras",
    ):  # they begin with a file: tests/parts/test_pretrained.py, test_keras_model.py
        return
    if (
        name == "gan"
    ):  # two modules at odds, whose inputs only its task cuts: tests/parts/test_gan.py
        return
    given = {case.values[3].per for case in CASES if case.values[0] == name}
    assert given == set(getattr(registry.facts("models", name), "GIVES", ("row",)))


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@every_case
def test_any_number_of_rows_gives_one_finite_output_row_each(
    name, options, inputs, output, training, count
):
    module = built(name, options, inputs, output=output).train(training)
    batch = rows(inputs, count)
    outputs = module(batch)
    wanted = shape_of(output, batch)
    if output.per == "frame":
        assert outputs.shape[1] <= wanted[1]
        wanted = (wanted[0], outputs.shape[1], wanted[2])
    if training and getattr(module, "members", 1) > 1:
        wanted = (wanted[0] * module.members, *wanted[1:])
    assert outputs.shape == wanted
    assert outputs.dtype == torch.float32
    assert (
        torch.isfinite(real(outputs, output, batch)).all()
        if outputs.shape[0] == count
        else torch.isfinite(outputs).all()
    )


@every_case
def test_the_gradient_reaches_every_parameter(name, options, inputs, output):
    still = {"dropout": 0.0} if "dropout" in registry.config("models", name).model_fields else {}
    module = shaken(built(name, {**options, **still}, inputs, output=output))
    outputs = module(rows(inputs, 64))
    (
        outputs * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    ).sum().backward()
    for parameter_name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@every_case
def test_the_same_seed_gives_the_same_weights(name, options, inputs, output):
    first, second = (
        built(name, options, inputs, seed=11, output=output).state_dict() for _ in range(2)
    )
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_case
def test_a_state_dict_carries_everything_to_another_module(name, options, inputs, output):
    module = built(name, options, inputs, seed=1, output=output)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)
    module(rows(inputs, 9))  # moves running statistics
    other = built(name, options, inputs, seed=2, output=output)
    other.load_state_dict({key: value.clone() for key, value in module.state_dict().items()})
    batch = rows(inputs, 5)
    assert torch.equal(module.eval()(batch), other.eval()(batch))


@every_case
def test_weights_are_plain_contiguous_float32_tensors_that_share_memory_only_where_tied(
    name, options, inputs, output
):
    values = built(name, options, inputs, output=output).state_dict(keep_vars=True).values()
    assert all(value.is_contiguous() for value in values)
    assert all(value.dtype in (torch.float32, torch.int64) for value in values)
    assert len({value.data_ptr() for value in values}) == len({id(value) for value in values})


@every_case
def test_a_row_in_evaluation_does_not_depend_on_the_rows_beside_it(name, options, inputs, output):
    module = shaken(built(name, options, inputs, output=output)).eval()
    batch = rows(inputs, 7)
    alone = torch.cat(
        [module({key: value[row : row + 1] for key, value in batch.items()}) for row in range(7)]
    )
    # 1e-4: other batch sizes take other matrix kernels, which sum in another order; float32 keeps 7
    # digits of sums over thousands
    torch.testing.assert_close(
        real(module(batch), output, batch), real(alone, output, batch), rtol=1e-4, atol=1e-4
    )


@every_case
def test_what_stands_after_the_end_of_a_row_changes_nothing(name, options, inputs, output):
    module = shaken(built(name, options, inputs, output=output)).eval()
    batch = rows(inputs, 5)
    if not any(each.kind in ("tokens", "frames") for each in inputs.values()):
        return
    longer = {
        key: nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, 3))
        if key in inputs and inputs[key].kind in ("tokens", "frames")
        else value
        for key, value in batch.items()
    }
    outputs, wider = real(module(batch), output, batch), real(module(longer), output, longer)
    if output.per in ("token", "frame"):
        wider = wider[:, : outputs.shape[1]]
    # 1e-4: as above, other shapes take other kernels
    torch.testing.assert_close(outputs, wider, rtol=1e-4, atol=1e-4)


@every_case
def test_an_output_that_must_not_look_ahead_does_not(name, options, inputs, output):
    if not output.causal:
        return
    module = shaken(built(name, options, inputs, output=output)).eval()
    batch = rows(inputs, 3)
    asked = places_of(batch)
    changed = {key: value.clone() for key, value in batch.items()}
    changed[asked][:, 5:] = (changed[asked][:, 5:] % (TOKENS.cardinalities[0] - 1)) + 1
    changed[asked] *= batch[asked] != 0
    # 1e-5: the same sums in the same order, but for blocks of attention
    torch.testing.assert_close(module(batch)[0, :5], module(changed)[0, :5], rtol=1e-5, atol=1e-5)


@every_case
def test_the_batch_is_not_changed(name, options, inputs, output):
    batch = rows(inputs, 6)
    before = {key: value.clone() for key, value in batch.items()}
    built(name, options, inputs, output=output)(batch)
    assert all(torch.equal(batch[key], before[key]) for key in batch)


def _first_of_each(cases: list) -> list:
    """A case of every model, set of options and kind of output: learning costs up to 25 updates,
    and other inputs meet the same layers."""
    first: dict = {}
    for case in cases:
        name, options, _, output = getattr(case, "values", case)
        first.setdefault((name, str(options), output.per), case)
    return list(first.values())


@pytest.mark.parametrize(("name", "options", "inputs", "output"), _first_of_each(CASES))
def test_a_few_updates_make_the_loss_smaller(name, options, inputs, output):
    if output.per in ("frame", "image"):
        return  # their own tests train them with the losses they need
    module = built(name, options, inputs, output=output)
    batch = rows(inputs, 32)
    generator = torch.Generator().manual_seed(2)
    count = 32 * (getattr(module, "members", 1) or 1)
    optimizer = torch.optim.Adam(
        [each for each in module.parameters() if each.requires_grad], lr=0.01
    )
    losses = []
    if output.per in ("step", "moment"):
        target = torch.randn(shape_of(output, batch), generator=generator)
    else:
        target = torch.randint(
            0, output.size, (32, *shape_of(output, batch)[1:-1]), generator=generator
        )
    for _ in range(25):
        optimizer.zero_grad()
        outputs = module(batch)
        asked = target.repeat_interleave(count // 32, dim=0) if len(outputs) == count else target
        if output.per in ("step", "moment"):
            loss = nn.functional.mse_loss(outputs, asked)
        else:
            loss = nn.functional.cross_entropy(outputs.flatten(0, -2), asked.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < 0.9 * losses[0]:
            return
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("name", registry.names("models"))
def test_a_part_offers_its_facts(name):
    module = registry.take("models", name)
    assert issubclass(module.Config, Options)
    assert set(module.TAKES) <= {"numbers", "categories", "image", "tokens", "frames", "series"}
    assert module.TAKES
    assert isinstance(module.DEFAULTS, dict)
    assert registry.summary("models", name).endswith(".")
    for field, info in module.Config.model_fields.items():
        assert info.description, field


def test_no_model_needs_torch_to_check_its_options():
    code = "import sys; from danlu import registry; [registry.config('models', n) for n in registry.names('models')]; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


# --- single models ----------------------------------------------------------------------------------------------------


def test_the_textbook_mlp_is_784_128_10():
    module = built(
        "mlp",
        {"hidden": [128], "activation": "relu", "dropout": 0.0},
        {"image": InputSpec("image", (1, 28, 28))},
        output=OutputSpec(10),
    )
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    assert shapes == [(128, 784), (128,), (10, 128), (10,)]


def test_the_textbook_cnn_has_convolutions_of_32_and_64_and_a_dense_layer_of_128():
    module = built(
        "cnn",
        {"design": "textbook"},
        {"image": InputSpec("image", (1, 28, 28))},
        output=OutputSpec(10),
    )
    shapes = [tuple(parameter.shape) for parameter in module.parameters() if parameter.ndim > 1]
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 64 * 7 * 7), (10, 128)]


@pytest.mark.parametrize("design", ["residual", "textbook"])
@pytest.mark.parametrize(
    "shape", [(1, 4, 4), (1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 31), (3, 64, 65), (1, 16, 4)]
)
def test_a_cnn_takes_any_image_from_four_pixels_on(shape, design):
    inputs = {"image": InputSpec("image", shape)}
    module = built(
        "cnn", {"design": design} | ({"width": 4} if design == "residual" else {}), inputs
    )
    for training in (True, False):
        assert module.train(training)(rows(inputs, 1)).shape == (1, OUTPUT.size)


def test_a_cnn_refuses_what_it_cannot_see():
    with pytest.raises(PartError, match="needs an image"):
        built("cnn", {}, {"numbers": NUMBERS})
    with pytest.raises(PartError, match=r"4x4 pixels or more.*3x9"):
        built("cnn", {}, {"image": InputSpec("image", (1, 3, 9))})


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="exclude each other"):
        MlpConfig(batch_norm=True, layer_norm=True)
    with pytest.raises(ValueError, match="width and blocks belong to design: residual"):
        CnnConfig(design="textbook", width=7, blocks=[1])


def test_a_linear_model_is_least_squares():
    """Its minimum is that of the normal equations, categories as one-hot columns."""
    inputs = {
        "numbers": InputSpec("numbers", (2,)),
        "categories": InputSpec("categories", (1,), cardinalities=(3,)),
    }
    module = built("linear", {}, inputs, output=OutputSpec(1)).double()
    batch = rows(inputs, 40)
    batch["numbers"] = batch["numbers"].double()
    target = torch.randn(40, 1, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    optimizer = torch.optim.LBFGS(
        module.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (module(batch) - target).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    one_hot = nn.functional.one_hot(batch["categories"][:, 0], 3).double()
    design = torch.cat([batch["numbers"], one_hot], dim=1)
    fitted = design @ torch.linalg.lstsq(design, target).solution
    # 1e-6: LBFGS stops at a gradient of 1e-12 in float64, far below
    torch.testing.assert_close(module(batch), fitted, rtol=0, atol=1e-6)


def test_a_linear_model_of_an_image_has_a_weight_a_pixel():
    module = built("linear", {}, {"image": IMAGE})
    assert sorted(tuple(each.shape) for each in module.parameters()) == [(5,), (5, 3 * 13 * 17)]


def test_an_unknown_category_says_nothing_at_the_start():
    module = built("mlp", {"hidden": []}, {"categories": CATEGORIES})
    unknown = module({"categories": torch.zeros(1, 3, dtype=torch.int64)})
    last = [each for each in module.modules() if isinstance(each, nn.Linear)][-1]
    assert torch.equal(unknown[0], last.bias)


def test_periodic_embeddings_repeat():
    from danlu.layers.tabular.periodic import PeriodicEmbedding

    torch.manual_seed(0)
    layer = PeriodicEmbedding(2, 1, 1.0)
    with torch.no_grad():
        layer.frequencies_FK.fill_(2.0)
    x = torch.tensor([[0.1, -0.3]])
    # 1e-5: sines of angles up to 10 in float32
    torch.testing.assert_close(layer(x)[:, 2:], layer(x + 0.5)[:, 2:], rtol=0, atol=1e-5)
    assert not torch.allclose(layer(x)[:, 2:], layer(x + 0.25)[:, 2:], atol=1e-3)


def test_an_mlp_regulates_the_size_of_its_signal():
    """Eight layers on, the spread of the hidden values is still of the order of one: neither
    vanished nor grown."""
    for activation in ("relu", "gelu", "silu", "tanh"):
        module = built(
            "mlp",
            {"hidden": [512] * 8, "activation": activation, "dropout": 0.0},
            {"numbers": InputSpec("numbers", (100,))},
        )
        with torch.no_grad():
            spread = (
                module[:-1](rows({"numbers": InputSpec("numbers", (100,))}, 200))
                .pow(2)
                .mean()
                .sqrt()
                .item()
            )
        assert 0.01 < spread < 10, activation


def test_batch_norm_keeps_its_statistics_on_a_batch_of_one():
    module = built("mlp", {"hidden": [4], "batch_norm": True}, {"numbers": NUMBERS}).train()
    module(rows({"numbers": NUMBERS}, 8))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module(rows({"numbers": NUMBERS}, 1))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


# --- the user's own module --------------------------------------------------------------------------------------------


def own(name: str, options: dict[str, Any], inputs: dict[str, InputSpec]) -> nn.Module:
    return built("python", {"object": f"a_module_for_tests:{name}", "options": options}, inputs)


def test_a_module_of_ones_own_gets_its_tensor_or_its_inputs_by_name():
    numbers = {"numbers": NUMBERS}
    assert own("OneTensor", {"size": 5}, numbers)(rows(numbers, 3)).shape == (3, 5)
    both = {"numbers": NUMBERS, "categories": CATEGORIES}
    assert own("ByName", {"size": 5}, both)(rows(both, 3)).shape == (3, 5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("OneTensor", {"size": 4}, r"made \(2, 4\) of two rows .*here \(2, 5\)"),
        ("OneTensor", {}, "could not be made with the options"),
        (
            "OneTensor",
            {"size": 5, "depth": 1},
            "could not be made with the options size, depth: TypeError",
        ),
        ("Broken", {"size": 5}, r"failed on two rows .*RuntimeError.*a_module_for_tests\.py:\d+"),
        ("OneTenso", {}, "has no OneTenso"),
        ("not_a_class", {}, "is no class derived from torch.nn.Module but an object of type int"),
        ("nothing", {}, "gave an object of type str, not a torch.nn.Module"),
    ],
)
def test_what_is_wrong_with_a_module_of_ones_own_is_said(name, options, message):
    with pytest.raises(PartError, match=message):
        own(name, options, {"numbers": NUMBERS})


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(PartError, match="there is no Python module a_module_nobody_wrote"):
        built("python", {"object": "a_module_nobody_wrote:Net"}, {"numbers": NUMBERS})


def test_own_code_is_refused_without_permission_and_never_imported(monkeypatch):
    config = registry.config("models", "python")
    allowed = config.model_validate({"object": "a_module_for_tests:OneTensor"})
    assert "a_module_for_tests" not in sys.modules
    with allow_code(False):
        with pytest.raises(ValueError, match="permitted with --allow-code"):
            config.model_validate({"object": "a_module_for_tests:OneTensor"})
        with pytest.raises(DanluError, match="--allow-code"):
            registry.build_model(Part("python", allowed), {"numbers": NUMBERS}, OUTPUT)
    assert "a_module_for_tests" not in sys.modules


def test_the_size_of_an_embedding_grows_with_its_column():
    from danlu.layers.embedding_size import embedding_size

    sizes = [embedding_size(count) for count in (2, 3, 10, 50, 1000, 10**6)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 64
    assert all(math.log2(size) % 1 == 0 for size in sizes)
