"""The promise of the shelf augmentations, held by every file on it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from danlu import registry
from danlu.errors import PartError
from danlu.recipe import Options, Part
from danlu.terms import Batch, InputSpec, OutputSpec

NAMES = registry.names("augmentations")
OUTPUT = OutputSpec(5)
BLENDING = ("mixup", "cutmix")  # a row blended with itself is itself
NUMBERS = InputSpec("numbers", (6,))
CATEGORIES = InputSpec("categories", (2,), cardinalities=(3, 9))
INPUTS = {
    "grey-9x13": {"image": InputSpec("image", (1, 9, 13))},
    "colour-17x8": {"image": InputSpec("image", (3, 17, 8))},
    "numbers": {"numbers": NUMBERS},
    "image-and-numbers": {"image": InputSpec("image", (3, 11, 11)), "numbers": NUMBERS},
    "frames": {"frames": InputSpec("frames", (19, 8))},
    "image-and-categories": {"image": InputSpec("image", (1, 8, 8)), "categories": CATEGORIES},
}
Augment = Callable[[Batch, torch.Generator], Batch]


def built(
    name: str,
    inputs: dict[str, InputSpec],
    options: dict[str, Any] | None = None,
    output: OutputSpec = OUTPUT,
) -> Augment:
    config = registry.config("augmentations", name).model_validate(options or {})
    return registry.build_augmentation(Part(name, config), inputs, output)


def sorted_out() -> tuple[list[Any], list[Any]]:
    """(taken, refused): each augmentation with each set of inputs, by whether it builds."""
    taken, refused = [], []
    for name in NAMES:
        for label, inputs in INPUTS.items():
            try:
                built(name, inputs)
            except PartError:
                refused.append(pytest.param(name, inputs, id=f"{name}-{label}"))
            else:
                taken.append(pytest.param(name, inputs, id=f"{name}-{label}"))
    return taken, refused


def batch_of(inputs: dict[str, InputSpec], count: int, seed: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, each in inputs.items():
        if each.kind == "categories":
            tensors[name] = torch.randint(
                0, min(each.cardinalities), (count, *each.shape), generator=generator
            )
        else:
            tensors[name] = torch.randn(count, *each.shape, generator=generator)
        if each.kind == "frames":
            lengths = torch.randint(1, each.shape[0] + 1, (count,), generator=generator)
            tensors[name] *= (torch.arange(each.shape[0]) < lengths[:, None])[:, :, None]
            tensors[f"{name}_lengths"] = lengths
    return Batch(
        tensors, torch.randint(0, OUTPUT.size, (count,), generator=generator), torch.arange(count)
    )


def copied(batch: Batch) -> Batch:
    return Batch(
        {name: each.clone() for name, each in batch.inputs.items()},
        batch.target.clone(),
        batch.rows.clone(),
    )


def same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.target, second.target) and all(
        torch.equal(first.inputs[name], second.inputs[name]) for name in first.inputs
    )


TAKEN, REFUSED = sorted_out()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_augmentation_takes_something():
    assert {case.values[0] for case in TAKEN} == set(NAMES)


@pytest.mark.parametrize(("name", "inputs"), REFUSED)
def test_inputs_that_do_not_fit_are_refused_with_a_remedy(name, inputs):
    with pytest.raises(PartError, match=name) as refusal:
        built(name, inputs)
    assert refusal.value.problem.hint


@pytest.mark.parametrize(("name", "inputs"), TAKEN)
def test_the_generator_alone_decides(name, inputs):
    augment, batch = built(name, inputs), batch_of(inputs, 33)
    torch.manual_seed(1)
    first = augment(batch, seeded(7))
    torch.manual_seed(2)
    assert same(first, augment(batch, seeded(7)))
    assert not same(first, augment(batch, seeded(8)))


@pytest.mark.parametrize(("name", "inputs"), TAKEN)
def test_nothing_is_drawn_from_the_default_generator(name, inputs):
    augment, batch = built(name, inputs), batch_of(inputs, 5)
    before = torch.get_rng_state()
    augment(batch, seeded(7))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("count", [1, 2, 33])
@pytest.mark.parametrize(("name", "inputs"), TAKEN)
def test_shapes_types_and_the_argument_are_kept(name, inputs, count):
    augment, batch = built(name, inputs), batch_of(inputs, count)
    before = copied(batch)
    result = augment(batch, seeded(1))
    assert same(batch, before)
    assert batch.target.dtype == torch.int64
    assert list(result.inputs) == list(batch.inputs)
    assert torch.equal(result.rows, batch.rows)
    for key, each in batch.inputs.items():
        assert result.inputs[key].shape == each.shape
        assert result.inputs[key].dtype == each.dtype
        assert torch.isfinite(result.inputs[key]).all()


@pytest.mark.parametrize(("name", "inputs"), TAKEN)
def test_a_target_stays_a_target(name, inputs):
    """Classes stay classes, or become probabilities: float32 (B, classes) that add to one, most of
    them on rows' own or partner's class."""
    batch = batch_of(inputs, 33)
    target = built(name, inputs)(batch, seeded(4)).target
    if target.dtype == torch.int64:
        assert torch.equal(target, batch.target)
        return
    assert target.dtype == torch.float32
    assert target.shape == (33, OUTPUT.size)
    # 1e-6: two float32 shares are added
    torch.testing.assert_close(target.sum(1), torch.ones(33), rtol=0, atol=1e-6)
    assert (target >= 0).all()
    assert ((target > 0).sum(1) <= 2).all()
    assert (target.gather(1, batch.target[:, None]) > 0).sum() > 20


@pytest.mark.parametrize(("name", "inputs"), TAKEN)
def test_probability_zero_changes_nothing(name, inputs):
    if name == "spec_augment":  # every row gets its masks: none where their number is 0
        return
    assert "probability" in registry.config("augmentations", name).model_fields
    batch = batch_of(inputs, 33)
    result = built(name, inputs, {"probability": 0.0})(batch, seeded(5))
    for key, each in batch.inputs.items():
        assert torch.equal(result.inputs[key], each)
    classes = result.target if result.target.ndim == 1 else result.target.argmax(1)
    assert torch.equal(classes, batch.target)
    assert result.target.ndim == 1 or torch.equal(result.target.amax(1), torch.ones(33))


@pytest.mark.parametrize(("name", "inputs"), TAKEN)
def test_a_row_touches_itself_and_at_most_one_other(name, inputs):
    """What stands in a row shows in its own result, and in that of the one row it is mixed into;
    draws do not depend on it."""
    augment, batch = built(name, inputs), batch_of(inputs, 33)
    changed = copied(batch)
    for key, each in changed.inputs.items():
        if each.is_floating_point():
            changed.inputs[key][12] += 1.5
    first, second = augment(batch, seeded(6)), augment(changed, seeded(6))
    differ = torch.zeros(33, dtype=torch.bool)
    for key in first.inputs:
        differ |= (first.inputs[key] != second.inputs[key]).reshape(33, -1).any(1)
    assert 1 <= differ.sum() <= 2
    assert differ[12] or differ.sum() == 1


@pytest.mark.parametrize(
    ("name", "inputs"), [case for case in TAKEN if case.values[0] not in BLENDING]
)
def test_rows_are_changed_by_draws_of_their_own(name, inputs):
    """A batch of one row repeated does not stay one row repeated."""
    batch = batch_of(inputs, 1)
    repeated = Batch(
        {key: each.repeat(33, *(1,) * (each.ndim - 1)) for key, each in batch.inputs.items()},
        batch.target.repeat(33),
        torch.arange(33),
    )
    result = built(name, inputs)(repeated, seeded(9))
    different = [len(torch.unique(each.reshape(33, -1), dim=0)) for each in result.inputs.values()]
    assert max(different) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_part_offers_its_facts(name):
    config = registry.config("augmentations", name)
    assert issubclass(config, Options)
    assert all(info.description for info in config.model_fields.values())
    assert registry.summary("augmentations", name).endswith((".", ":"))


def test_no_augmentation_needs_torch_to_check_its_options():
    code = "import sys; from danlu import registry; [registry.config('augmentations', n) for n in registry.names('augmentations')]; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


# --- single augmentations ---------------------------------------------------------------------------------------------


def numbered(height: int, width: int, count: int = 200) -> tuple[dict[str, InputSpec], Batch]:
    """Rows of one image whose pixels are 1, 2, 3, ..."""
    image = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    batch = Batch(
        {"image": image.repeat(count, 1, 1, 1)},
        torch.zeros(count, dtype=torch.int64),
        torch.arange(count),
    )
    return {"image": InputSpec("image", (1, height, width))}, batch


@pytest.mark.parametrize(
    ("fill", "mode"), [("edge", "replicate"), ("reflect", "reflect"), ("zero", "constant")]
)
def test_a_crop_is_a_window_of_the_padded_image(fill, mode):
    inputs, batch = numbered(5, 7)
    result = built("crop", inputs, {"padding": 3, "fill": fill})(batch, seeded(1)).inputs["image"]
    padded = torch.nn.functional.pad(batch.inputs["image"][:1], (3, 3, 3, 3), mode=mode)[0]
    windows = padded.unfold(1, 5, 1).unfold(2, 7, 1).reshape(49, 5, 7)
    which = (result[:, :] == windows[None]).flatten(2).all(2)
    assert which.any(1).all()
    assert len(which[:, :].int().argmax(1).unique()) > 40  # of 49 places, 200 rows


def test_a_crop_reaches_every_shift_equally_often():
    inputs, batch = numbered(9, 9, count=9000)
    corner = built("crop", inputs, {"padding": 1})(batch, seeded(1)).inputs["image"][:, 0, 4, 4]
    counts = corner.unique(return_counts=True)[1]
    assert len(counts) == 9
    assert counts.min() > 850  # 1000 expected, standard deviation 30


def test_a_crop_larger_than_the_image_cannot_reflect():
    with pytest.raises(PartError, match="cannot reflect 9 pixels"):
        built("crop", {"image": InputSpec("image", (1, 9, 20))}, {"padding": 9, "fill": "reflect"})


def test_a_flip_mirrors_half_of_the_rows():
    inputs, batch = numbered(3, 5)
    result = built("flip", inputs)(batch, seeded(1)).inputs["image"]
    mirrored = (result == batch.inputs["image"].flip(3)).flatten(1).all(1)
    kept = (result == batch.inputs["image"]).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum() < 130  # 100 expected, standard deviation 7
    turned = built("flip", inputs, {"horizontal": False, "vertical": True, "probability": 1.0})(
        batch, seeded(1)
    ).inputs["image"]
    assert torch.equal(turned, batch.inputs["image"].flip(2))


def test_a_rotation_turns_about_the_centre_of_an_image_that_is_not_square():
    """A disc about the centre stays, and a bar turns by the angle drawn."""
    height, width = 41, 61
    y, x = torch.meshgrid(torch.arange(height) - 20.0, torch.arange(width) - 30.0, indexing="ij")
    disc = (15 - (x.square() + y.square()).sqrt()).clamp(0, 1)
    bar = ((y.abs() <= 1) & (x.abs() <= 18)).float()
    batch = Batch(
        {"image": torch.stack([disc, bar])[:, None]},
        torch.zeros(2, dtype=torch.int64),
        torch.arange(2),
    )
    rotate = built(
        "rotate",
        {"image": InputSpec("image", (1, height, width))},
        {"degrees": 60.0, "fill": "zero"},
    )
    for seed in range(5):
        result = rotate(batch, seeded(seed)).inputs["image"][:, 0]
        assert (result[0] - disc).abs().max() < 0.35  # bilinear between pixels blurs the rim
        drawn = (torch.rand(2, generator=seeded(seed))[1].item() * 2 - 1) * 60
        weight = result[1] / result[1].sum()
        moments = [(weight * each).sum().item() for each in (x * x, y * y, x * y)]
        angle = math.degrees(0.5 * math.atan2(2 * moments[2], moments[0] - moments[1]))
        assert abs(abs(angle) - abs(drawn)) < 1.0  # a bar of 37x3 pixels, read to a degree
        assert abs(weight.sum().item() - 1) < 1e-5


def test_an_erased_box_is_as_large_as_asked():
    inputs, batch = numbered(40, 50, count=500)
    result = built("erase", inputs, {"probability": 1.0, "smallest": 0.1, "largest": 0.2})(
        batch, seeded(1)
    ).inputs["image"][:, 0]
    erased = result == 0
    share = erased.flatten(1).float().mean(1)
    assert 0.08 < share.min() < 0.12  # whole pixels round the sides
    assert 0.18 < share.max() < 0.22
    assert torch.equal(erased, erased.any(2)[:, :, None] & erased.any(1)[:, None, :])  # boxes
    assert torch.equal(result[~erased], batch.inputs["image"][:, 0][~erased])


def test_a_tiny_image_is_never_erased_beyond_its_edge():
    inputs, batch = numbered(4, 30)
    result = built("erase", inputs, {"probability": 1.0, "smallest": 0.9, "largest": 1.0})(
        batch, seeded(1)
    ).inputs["image"]
    assert (result == 0).flatten(1).any(1).all()


def test_mixup_blends_inputs_and_target_by_the_same_share():
    inputs = {"numbers": NUMBERS}
    batch = batch_of(inputs, 64)
    batch.inputs["numbers"] = torch.nn.functional.one_hot(batch.target, 6).float()
    result = built("mixup", inputs, {"alpha": 1.0})(batch, seeded(2))
    # 1e-6: the same float32 arithmetic on both sides
    torch.testing.assert_close(result.inputs["numbers"][:, :5], result.target, rtol=0, atol=1e-6)
    assert (result.target.gather(1, batch.target[:, None]) >= 0.5).all()


def test_mixup_draws_its_shares_from_beta():
    from scipy.stats import beta, kstest

    from danlu.system.random_draws import draw_from_quantiles, symmetric_beta

    for alpha in (0.1, 0.4, 1.0, 3.0):
        drawn = draw_from_quantiles(symmetric_beta(alpha), torch.rand(4000, generator=seeded(3)))
        # on a grid of 0.001, since the density of a small alpha is packed against 0 and 1, closer
        # than the table's points
        grid = torch.linspace(0.001, 0.999, 999)
        observed = torch.searchsorted(drawn.sort().values, grid, right=True) / 4000
        expected = torch.from_numpy(beta(alpha, alpha).cdf(grid.numpy())).float()
        assert (observed - expected).abs().max() < 0.03, (
            alpha
        )  # Kolmogorov-Smirnov at 0.1 percent: 1.95 / sqrt(4000)
    assert kstest(drawn.numpy(), beta(3.0, 3.0).cdf).pvalue > 0.001


def test_mixup_and_cutmix_take_probabilities_and_numbers_as_targets():
    inputs = {"image": InputSpec("image", (1, 8, 8))}
    for name in ("mixup", "cutmix"):
        batch = batch_of(inputs, 16)
        batch.target = torch.randn(16, 5, generator=seeded(1))
        result = built(name, inputs, {"probability": 1.0})(batch, seeded(2))
        assert result.target.shape == (16, 5)
        # 1e-5: mixing by a permutation keeps no row's sum, but every mixed value lies between two
        # of its column
        assert (result.target.amax(0) <= batch.target.amax(0) + 1e-5).all()
        assert not torch.equal(result.target, batch.target)
        soft = built(name, inputs)(
            built(name, inputs)(batch_of(inputs, 16), seeded(1)), seeded(2)
        ).target
        torch.testing.assert_close(soft.sum(1), torch.ones(16), rtol=0, atol=1e-5)  # float32 shares


def test_several_tasks_are_not_mixed():
    inputs = {"image": InputSpec("image", (1, 8, 8))}
    batch = batch_of(inputs, 4)
    batch.target = {"a": batch.target, "b": batch.target}
    for name in ("mixup", "cutmix"):
        with pytest.raises(PartError, match=f"{name} mixes the target of one task"):
            built(name, inputs)(batch, seeded(1))


def test_cutmix_counts_the_pixels_it_moved():
    height, width, count = 9, 14, 60
    inputs = {"image": InputSpec("image", (1, height, width))}
    classes = torch.arange(count)
    image = classes.float().view(count, 1, 1, 1).expand(count, 1, height, width).clone()
    augment = built("cutmix", inputs, {"probability": 1.0}, OutputSpec(count))
    result = augment(Batch({"image": image}, classes, classes), seeded(3))
    pixels = (
        torch.nn.functional.one_hot(result.inputs["image"].flatten(1).long(), count).float().mean(1)
    )
    # 1e-6: shares of pixels in float32
    torch.testing.assert_close(result.target, pixels, rtol=0, atol=1e-6)
    assert (pixels.amax(1) < 1).sum() > 30


def test_noise_has_the_scale_asked_for():
    inputs = {"numbers": InputSpec("numbers", (50,))}
    batch = batch_of(inputs, 200)
    added = (
        built("noise", inputs, {"scale": 0.3})(batch, seeded(1)).inputs["numbers"]
        - batch.inputs["numbers"]
    )
    assert abs(added.std().item() - 0.3) < 0.01  # 10,000 draws: standard error 0.002
    assert abs(added.mean().item()) < 0.015


def test_brightness_moves_the_mean_and_contrast_the_spread():
    inputs = {"image": InputSpec("image", (3, 10, 12))}
    batch = batch_of(inputs, 300)
    x = batch.inputs["image"]
    bright = (
        built("brightness_contrast", inputs, {"brightness": 0.5, "contrast": 0.0})(
            batch, seeded(1)
        ).inputs["image"]
        - x
    )
    assert bright.flatten(1).std(1).max() < 1e-5  # the same for all pixels of a row, to float32
    assert 0.45 < bright.mean((1, 2, 3)).abs().max() <= 0.5 + 1e-5
    contrast = built("brightness_contrast", inputs, {"brightness": 0.0, "contrast": 0.5})(
        batch, seeded(1)
    ).inputs["image"]
    ratio = (contrast.flatten(1).std(1) / x.flatten(1).std(1)).log()
    assert 0.4 < ratio.abs().max() <= 0.5 + 1e-4
    torch.testing.assert_close(
        contrast.mean((1, 2, 3)), x.mean((1, 2, 3)), rtol=0, atol=1e-5
    )  # float32 means of 360 pixels
