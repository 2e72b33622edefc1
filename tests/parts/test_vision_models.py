"""Models of images, images that grow during training, and several views of an image in evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import danlu
import make
from danlu import recipe as recipes
from danlu import registry
from danlu.errors import PartError
from danlu.layers.normalization import BatchNorm2d
from danlu.layers.vision.patches import Patches, PatchPositions, patch_side
from danlu.layers.vision.residual import BottleneckBlock, PreActivationBlock, ResidualBlock
from danlu.layers.vision.test_time_augmentation import AveragedViews, shift_image
from danlu.recipe import Part
from danlu.terms import Batch, InputSpec, OutputSpec
from danlu.training.progressive_resizing import ProgressiveResizing
from danlu.training.setup import build_training

TEN = OutputSpec(10, means=(("classes", 10),))


def built(
    name: str,
    shape: tuple[int, int, int] = (1, 28, 28),
    output: OutputSpec = TEN,
    **options: object,
) -> nn.Module:
    torch.manual_seed(1)
    config = registry.config("models", name).model_validate(options)
    return registry.build_model(Part(name, config), {"image": InputSpec("image", shape)}, output)


def weights(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [each for each in module.modules() if isinstance(each, nn.Conv2d)]


# --- the papers' networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "millions"), [(18, 11.7), (34, 21.8), (50, 25.6)])
def test_a_resnet_has_the_weights_of_the_paper(layers, millions):
    module = built("resnet", (3, 224, 224), OutputSpec(1000), num_layers=layers)
    assert (
        round(weights(module) / 1e6, 1) == millions
    )  # torchvision's resnet18, 34, 50: 11.7, 21.8, 25.6 million
    # the paper counts the first convolution, those of the blocks and the last layer, not the ways
    # around
    around = [
        each
        for block in module.modules()
        if isinstance(block, ResidualBlock | BottleneckBlock)
        for each in [block.around]
        if each
    ]
    assert len(convolutions(module)) - len(around) + 1 == layers


def test_a_wide_resnet_has_the_weights_of_the_paper():
    assert (
        round(weights(built("wide_resnet", (3, 32, 32), depth=28, width=10)) / 1e6, 1) == 36.5
    )  # table 4 of the paper
    assert round(weights(built("wide_resnet", (3, 32, 32), depth=16, width=8)) / 1e6, 1) == 11.0


@pytest.mark.parametrize(("depth", "said"), [(15, "such as 10 or 16"), (20, "such as 16 or 22")])
def test_a_depth_that_makes_no_three_stages_is_refused(depth, said):
    with pytest.raises(ValueError, match=said):
        registry.config("models", "wide_resnet")(depth=depth)


def test_a_vit_has_the_weights_of_the_paper():
    """ViT-B/16 at 224 pixels: 86.6 million with its biases; here there are none but those of
    patches and head."""
    module = built(
        "vit",
        (3, 224, 224),
        OutputSpec(1000),
        patch=16,
        width=768,
        num_layers=12,
        num_heads=12,
        pooling="class_token",
    )
    biases = 12 * (4 * 768 + 3072 + 768 + 2 * 768) + 768  # of attention, feed-forward and norms
    token = 768 + 768  # the paper's class token has a place of its own
    # 86,567,656 as torchvision counts vit_b_16
    assert weights(module) + biases + token - 768 == 86_567_656


def test_a_mixer_has_the_weights_of_the_paper():
    """Mixer-B/16: 59.9 million."""
    module = built(
        "mlp_mixer",
        (3, 224, 224),
        OutputSpec(1000),
        patch=16,
        width=768,
        num_layers=12,
        inner_places=384,
        inner_width=3072,
    )
    assert round(weights(module) / 1e6, 1) == 59.9


# --- images of any size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wide_resnet", "resnet", "vit", "mlp_mixer"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 31), (1, 28, 28), (3, 64, 65)])
def test_any_image_from_four_pixels_on_is_taken(name, shape):
    small = {"wide_resnet": {"width": 1, "depth": 10}, "resnet": {"width": 4}}.get(
        name, {"width": 8, "num_layers": 1}
    )
    module = built(name, shape, **small)
    for training in (True, False):
        outputs = module.train(training)({"image": torch.randn(1, *shape)})
        assert outputs.shape == (1, 10)
        assert torch.isfinite(outputs).all()


@pytest.mark.parametrize("name", ["wide_resnet", "resnet", "vit", "mlp_mixer"])
def test_what_holds_no_image_is_refused(name):
    with pytest.raises(PartError, match=f"{name} needs an image"):
        registry.build_model(
            Part(name, registry.config("models", name)()),
            {"numbers": InputSpec("numbers", (3,))},
            TEN,
        )


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(
        PartError, match="vit takes images of 9x9 pixels or more, and those of image have 8x20"
    ):
        built("vit", (1, 8, 20), patch=9)


def test_large_images_are_quartered_at_the_start_and_small_ones_are_not():
    first = (
        convolutions(built("resnet", (3, 64, 64), width=4))[0],
        convolutions(built("resnet", (3, 63, 80), width=4))[0],
    )
    assert [(each.kernel_size, each.stride) for each in first] == [
        ((7, 7), (2, 2)),
        ((3, 3), (1, 1)),
    ]
    first = (
        convolutions(built("wide_resnet", (3, 48, 48)))[0],
        convolutions(built("wide_resnet", (3, 47, 47)))[0],
    )
    assert [each.stride for each in first] == [(2, 2), (1, 1)]


def test_patches_are_cut_as_a_convolution_cuts_them():
    torch.manual_seed(0)
    patches, x = Patches(3, 4, 7), torch.randn(2, 3, 8, 12)
    kernel = patches.linear.weight.unflatten(1, (3, 4, 4))
    wanted = (
        nn.functional.conv2d(x, kernel, patches.linear.bias, stride=4).flatten(2).transpose(1, 2)
    )
    # 1e-5: sums of 48 float32 products in another order
    torch.testing.assert_close(patches(x), wanted, rtol=1e-5, atol=1e-5)


def test_a_patch_that_reaches_over_the_edge_sees_the_mean_pixel_there():
    torch.manual_seed(0)
    patches, x = Patches(1, 4, 5), torch.randn(2, 1, 6, 7)
    assert patches.grid(6, 7) == (2, 2)
    padded = torch.zeros(2, 1, 8, 8)
    padded[:, :, :6, :7] = x
    assert torch.equal(patches(x), patches(padded))


def test_positions_of_another_grid_lie_between_those_learnt():
    positions = PatchPositions((2, 2), 1)
    with torch.no_grad():
        positions.positions_DHW.copy_(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]))
    found = positions(torch.zeros(1, 16, 1), (4, 4)).reshape(4, 4)
    assert found[0, 0] == 0
    assert found[-1, -1] == 3
    assert (found[:, 1:] >= found[:, :-1]).all()
    assert (found[1:] >= found[:-1]).all()


def test_the_side_of_a_patch_suits_the_image():
    assert [patch_side(side, side + 3) for side in (8, 28, 32, 64, 224)] == [2, 4, 4, 8, 16]


# --- how blocks begin -----------------------------------------------------------------------------------------------------


def test_blocks_of_a_resnet_begin_near_the_identity():
    module = built("resnet", width=4)
    for block in module.modules():
        if isinstance(block, ResidualBlock):
            assert isinstance(block.body[-1], BatchNorm2d)
            assert (block.body[-1].weight == 0.1).all()


def test_a_block_with_norm_first_adds_to_its_input_untouched():
    torch.manual_seed(0)
    block, x = PreActivationBlock(3, 3, stride=1, activation_name="relu"), torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        for parameter in block.body[-1].parameters():
            parameter.zero_()
    assert torch.equal(block(x), x)


# --- images that grow ------------------------------------------------------------------------------------------------------


def test_images_grow_in_proportion_to_the_steps_done():
    resizing = ProgressiveResizing(
        {"image": InputSpec("image", (1, 28, 20))}, start=0.5, until=100, multiple=4
    )
    assert [resizing.size("image", n) for n in (0, 30, 60, 90, 100, 10**6)] == [
        (16, 8),  # 14 and 10 to multiples of 4; of two equally near the one with an even count
        (20, 12),
        (24, 16),
        (28, 20),
        (28, 20),
        (28, 20),
    ]
    small = resizing(
        Batch(
            {"image": torch.ones(3, 1, 28, 20), "other": torch.ones(3, 2)}, None, torch.arange(3)
        ),
        0,
    )
    assert small.inputs["image"].shape == (3, 1, 16, 8)
    # 1e-5: weights of a mean sum to one in float32
    torch.testing.assert_close(small.inputs["image"], torch.ones(3, 1, 16, 8), rtol=0, atol=1e-5)
    assert small.inputs["other"].shape == (3, 2)


def digits(model: object, **train: object) -> dict[str, object]:
    return make.digits(
        data={"split": {"name": "stratified", "validation": 0.1, "test": 0.2}},
        model=model,
        train={"steps": 30, "batch_size": 64, "threads": 1, "evaluate_every": 30, **train},
        metrics=["accuracy"],
        watchers=[],
    )


def test_an_update_sees_the_size_of_its_step():
    growing = {"start": 0.5, "until": 0.5, "multiple": 2}
    apparatus = build_training(
        recipes.read(digits({"name": "cnn", "width": 4}, progressive_resizing=growing), registry)
    )
    seen: list[tuple[int, ...]] = []
    apparatus.state.module.register_forward_pre_hook(
        lambda module, given: seen.append(tuple(given[0]["image"].shape[2:]))
    )
    for n in (0, 8, 15, 29):
        apparatus.update(n)
    assert seen == [(4, 4), (6, 6), (8, 8), (8, 8)]
    seen.clear()
    apparatus.evaluator.score(
        apparatus.state.module, "validation", apparatus.data.splits["validation"]
    )
    assert set(seen) == {(8, 8)}


@pytest.mark.parametrize("model", ["mlp", "mlp_mixer", {"name": "cnn", "design": "textbook"}])
def test_a_model_of_one_size_refuses_images_that_grow_before_training(model):
    with pytest.raises(
        PartError,
        match="starts with images of 4x4, and this model takes only the size it was built for",
    ):
        build_training(recipes.read(digits(model, progressive_resizing={"multiple": 2}), registry))


def test_growing_images_and_views_need_an_image():
    numbers = {"numbers": InputSpec("numbers", (3,))}
    with pytest.raises(PartError, match="progressive_resizing changes images"):
        ProgressiveResizing(numbers, 0.5, 10, 4)
    with pytest.raises(PartError, match="test_time_augmentation changes images"):
        AveragedViews(["flip"], numbers, TEN)
    with pytest.raises(PartError, match="one answer a row"):
        AveragedViews(
            ["flip"], {"image": InputSpec("image", (1, 4, 4))}, OutputSpec(3, per="token")
        )


# --- several views -----------------------------------------------------------------------------------------------------------


def test_the_answer_to_several_views_is_the_mean_of_their_probabilities():
    module = built("cnn", width=4).eval()
    image = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    views = AveragedViews(["flip", "shift"], {"image": InputSpec("image", (1, 28, 28))}, TEN)
    shown = [
        each
        for x in (image, shift_image(image, 1), shift_image(image, -1))
        for each in (x, x.flip(3))
    ]
    with torch.no_grad():
        wanted = torch.stack([module({"image": x}).softmax(1) for x in shown]).mean(0)
        found = views(module, {"image": image})
    # 1e-5: probabilities from float32 logarithms
    torch.testing.assert_close(found.softmax(1), wanted, rtol=0, atol=1e-5)


def test_a_moved_image_repeats_its_edge():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert shift_image(x, 1)[0, 0].tolist() == [[0, 0, 1], [0, 0, 1], [3, 3, 4]]
    assert shift_image(x, -1)[0, 0].tolist() == [[4, 5, 5], [7, 8, 8], [7, 8, 8]]


def test_what_is_served_is_what_was_measured_with_its_views(tmp_path):
    recipe = digits({"name": "cnn", "width": 4})
    recipe["data"] = {**recipe["data"], "test_time_augmentation": ["shift"]}  # type: ignore[dict-item]
    artifact = danlu.train(recipe, run=tmp_path / "run")
    again = danlu.load(tmp_path / "run")
    assert again.recipe.data.test_time_augmentation == ["shift"]
    assert danlu.evaluate(again).values["accuracy"] == artifact.scores["test"]["accuracy"]
    table = again.table({"image": np.zeros((2, 8, 8, 1), np.uint8)})
    alone = again.module.eval()
    with torch.no_grad():
        seen = AveragedViews(["shift"], again.preprocessor.inputs, again.task.output)
        blank = {
            "image": torch.full(
                (2, 1, 8, 8),
                -again.preprocessor.pixels["image"]["mean"][0]
                / again.preprocessor.pixels["image"]["std"][0],
            )
        }
        wanted = seen(alone, blank)
    # 1e-5: the same operations on pixels scaled by another order of factors
    torch.testing.assert_close(torch.cat(list(again.outputs(table))), wanted, rtol=1e-5, atol=1e-5)
