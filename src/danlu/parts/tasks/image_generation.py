"""Images like those of the data; with a target column, images of the class asked for.

The images themselves are learnt. An optional target column (a category, a boolean, or a number with
few values) makes the generator conditional. The image for a row is a function of the weights and of
the row's number alone. `danlu generate` makes images with the artifact."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from danlu.data.examples import Examples
from danlu.errors import DataError
from danlu.parts.tasks._base import (
    Answer,
    AnswersOutputs,
    ClassValue,
    CutsExamples,
    DrawsSamples,
    ExportsGenerator,
    GeneratesImages,
    ImageGenerator,
    PreparedInputs,
    ScoreOrder,
)
from danlu.parts.tasks._targets import (
    class_text,
    comma_list,
    distinct_values,
    refuse_empty,
    sort_classes,
)
from danlu.recipe import Options
from danlu.system.image_grid import encode_png, image_grid
from danlu.terms import Column, InputSpec, OutputSpec, Sample, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

ASKS = "samples"
TARGETS = (0, 1)
READS = ("image",)
STEP = "adversarial"
DEFAULTS = {
    "model": "gan",
    "loss": "adversarial",
    "metrics": ["frechet_distance"],
}
A_CLASS = 8  # images of each class in a sample
UNCONDITIONAL = 64  # images in a sample where there is no class
MOST_CLASSES = 16  # in a sample


class Config(Options):
    """No options."""


class ImageGeneration(
    GeneratesImages, CutsExamples, AnswersOutputs, DrawsSamples, ExportsGenerator
):
    """The shape and scale of the images, and the classes that can be asked for."""

    rows_are_independent = False
    usage = "generate {} --out grid.png"
    score_order: ScoreOrder = ("frechet_distance", "lower")

    def __init__(self, target: str | None, classes: list[ClassValue]) -> None:
        self.target_names: tuple[str, ...] = () if target is None else (target,)
        self.classes = tuple(classes)
        self.class_names = tuple(class_text(value) for value in classes)
        self._index_of = {text: number for number, text in enumerate(self.class_names)}
        self.set_image(InputSpec("image", (0, 0, 0)))  # known once there are rows

    def set_image(self, image: InputSpec) -> None:
        """Set the shape and scale of the images to generate."""
        self.image = image
        self.output = OutputSpec(int(np.prod(image.shape)), per="image", shape=image.shape)

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        image = {
            "shape": list(self.image.shape),
            "mean": list(self.image.mean),
            "std": list(self.image.std),
        }
        return {
            "target": next(iter(self.target_names), None),
            "classes": list(self.classes),
            "image": image,
        }

    def class_number(self, value: object) -> int:
        """The number of a class; DataError where there is no such class."""
        text = class_text(value)
        if text not in self._index_of:
            choice = (
                f"the classes are {comma_list(self.classes, 20)}"
                if self.classes
                else "this generator has no classes"
            )
            raise DataError(
                f"{text!r} cannot be generated: {choice}.",
                hint="ask for one of them" if self.classes else "leave it out",
            )
        return self._index_of[text]

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: dict[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """The rows themselves; the input "row" determines the noise, "class" the class (without a
        target: the classes in turn)."""
        if "image" not in arrays:
            raise DataError(
                "there is no image to learn from.",
                where=table.origin,
                hint="give a column the kind image",
            )
        self.set_image(specs["image"])
        count = len(arrays["image"])
        inputs = {"image": arrays["image"], "row": np.arange(count, dtype=np.int64)[:, None]}
        input_specs = {"image": self.image, "row": InputSpec("categories", (1,), names=("row",))}
        if self.target_names:
            rows = np.sort(np.concatenate(list(splits.values())))
            codes = np.arange(count, dtype=np.int64) % len(self.classes)
            if targets:
                codes[rows] = self._encoded(targets[self.target_names[0]].take(rows))
            inputs["class"] = codes[:, None]
            input_specs["class"] = InputSpec(
                "categories", (1,), names=self.target_names, cardinalities=(len(self.classes),)
            )
        return Examples(inputs, input_specs, None, splits)

    def _encoded(self, column: Column) -> np.ndarray:
        values, codes = distinct_values(column)
        table = np.array(
            [self._index_of.get(class_text(value), -1) for value in values], dtype=np.int64
        )
        numbers = table[codes]
        if len(numbers) and numbers.min() < 0:
            strange = np.unique(codes[numbers < 0])
            raise DataError(
                f"the column {column.name} holds {comma_list([values[code] for code in strange])} "
                f"in {int((numbers < 0).sum()):,} rows, "
                f"which no training row has; the classes are {comma_list(self.classes)}.",
                hint="mend or leave out those rows, or train with rows of every class "
                "(data.split: stratified)",
            )
        return numbers

    # --- exports: a generator takes noise and a class

    def generator_inputs(self, module: nn.Module) -> dict[str, InputSpec]:
        """ "noise" and, with classes, "class"."""
        inputs = {"noise": InputSpec("numbers", (_generator(module).latent,))}
        return (
            {**inputs, "class": InputSpec("categories", (1,), names=self.target_names)}
            if self.classes
            else inputs
        )

    def generate(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """The images of that noise."""
        return _generator(module).imagine(inputs, inputs["noise"])

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"shades": float32 (N, C, H, W)}, from 0 (black) to 1."""
        import torch

        mean, std = (
            torch.tensor(values)[:, None, None] for values in (self.image.mean, self.image.std)
        )
        return {"shades": (outputs * std + mean).clamp(0, 1)}

    def example_inputs(self, module: nn.Module, count: int) -> dict[str, np.ndarray]:
        """Inputs of `count` images: the noise of rows 0, 1, ..., the classes in turn."""
        import torch

        with torch.inference_mode():
            noise = _generator(module).noise_of(torch.arange(count)).cpu().numpy()
        classes = np.arange(count, dtype=np.int64)[:, None] % max(len(self.classes), 1)
        return {"noise": noise.astype(np.float32), **({"class": classes} if self.classes else {})}

    def row_schema(self) -> dict[str, dict[str, object]]:
        """ "seed", and with classes "class"."""
        schema: dict[str, dict[str, object]] = {
            "seed": {"kind": "number", "minimum": 0.0, "maximum": 2.0**31}
        }
        return (
            {**schema, "class": {"kind": "category", "categories": list(self.class_names)}}
            if self.classes
            else schema
        )

    def inputs_from_rows(self, table: Table, latent: int) -> dict[str, np.ndarray]:
        """The inputs for the rows of a table; the noise is a function of the seed alone. DataError
        for an unknown class."""
        seeds = np.nan_to_num(table.columns["seed"].values).astype(np.int64)
        noise = np.stack(
            [
                np.random.Generator(np.random.Philox(key=int(seed) % 2**63)).standard_normal(latent)
                for seed in seeds
            ]
        )
        inputs: dict[str, np.ndarray] = {"noise": noise.astype(np.float32)}
        if self.classes:
            column = table.columns["class"]
            inputs["class"] = np.array(
                [[self.class_number(column.python_value(row))] for row in range(len(table))],
                dtype=np.int64,
            )
        return inputs

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """{"prediction": a PNG as a data URL} per row."""
        images = np.rint(arrays["shades"].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        return [{"prediction": _png_url(np.ascontiguousarray(image))} for image in images]

    def pixels(self, outputs: Tensor) -> np.ndarray:
        """Outputs (N, C, H, W) as uint8 (N, H, W, C)."""
        return to_pixels(outputs, self.image)

    def samples(self, module: nn.Module, seed: int) -> tuple[Sample, ...]:
        """One image: a line of images for each class, or a square of them; a function of weights
        and seed."""
        import torch

        device = next(iter(module.parameters())).device
        shown = min(len(self.classes), MOST_CLASSES)
        count = shown * A_CLASS if shown else UNCONDITIONAL
        rows = torch.arange(count, device=device) + (seed >> 1)
        inputs = {"row": rows[:, None]}
        if shown:
            inputs["class"] = torch.arange(shown, device=device).repeat_interleave(A_CLASS)[:, None]
        training = module.training
        module.eval()
        try:
            with torch.inference_mode():
                images = self.pixels(module(inputs))
        finally:
            module.train(training)
        return (Sample("samples", image_grid(images, A_CLASS)),)

    def answers(self, outputs: Tensor) -> list[Answer]:
        """{"prediction": a PNG as a data URL} per row."""
        return [{"prediction": _png_url(image)} for image in self.pixels(outputs)]

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """{}: there is no constant answer to compare with."""
        return {}

    def describe(self) -> str:
        """'generation of 28x28 grey images, 10 classes of label'."""
        channels, height, width = self.image.shape
        what = f"generation of {height}x{width} {'grey' if channels == 1 else 'RGB'} images"
        return (
            f"{what}, {len(self.classes):,} classes of {self.target_names[0]}"
            if self.classes
            else what
        )


def _png_url(image: np.ndarray) -> str:
    """An image, uint8 (H, W, C), as a PNG in a data URL."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"


def _generator(module: nn.Module) -> ImageGenerator:
    return cast("ImageGenerator", module)  # the recipe pairs the task with a model that is one


def to_pixels(outputs: Tensor, image: InputSpec) -> np.ndarray:
    """Images (N, C, H, W) on the scale of the normalised input `image`, as uint8 (N, H, W, C)."""
    import torch

    mean, std = (torch.tensor(values)[:, None, None] for values in (image.mean, image.std))
    shade = (outputs.detach().float().cpu() * std + mean).clamp(0, 1)
    return (shade * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def build(config: Config, targets: Mapping[str, Column]) -> ImageGeneration:
    """The task over the classes of the training rows."""
    if not targets:
        return ImageGeneration(None, [])
    ((name, column),) = targets.items()
    refuse_empty(column)
    values, codes = distinct_values(column)
    in_some_row = np.bincount(codes, minlength=len(values)) > 0
    classes = sort_classes(
        [value for value, there in zip(values, in_some_row, strict=True) if there]
    )
    if len(classes) > max(20, len(column) // 10):
        raise DataError(
            f"the target {name} has {len(classes):,} distinct values in {len(column):,} rows, too "
            "many to be classes.",
            hint="leave data.target out, or name a column of classes",
        )
    return ImageGeneration(name, classes)


def restore(config: Config, state: Mapping[str, Any]) -> ImageGeneration:
    """The task whose `state()` this is."""
    task = ImageGeneration(state["target"], state["classes"])
    image = state["image"]
    shape, mean, std = (tuple(image[name]) for name in ("shape", "mean", "std"))
    task.set_image(InputSpec("image", shape, mean=mean, std=std))
    return task
