"""The sections of a recipe with their options, the whole recipe, and its defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from danlu.recipe.database_address import parse_address
from danlu.recipe.options import OnShelf, Options, Part, as_plain
from danlu.recipe.search_space import Space
from danlu.terms import Kind


class ColumnOptions(Options):
    """What a recipe says of one column."""

    kind: Kind | None = Field(
        default=None, description="What the column holds; inferred when null."
    )
    on_error: Literal["error", "missing"] = Field(
        default="error",
        description="A value that is not of the kind: stop and name the row, or count it as "
        "missing.",
    )
    use: bool = Field(
        default=True,
        description="Whether the column is an input (false for names, keys, anything that must "
        "not be learnt from).",
    )
    size: (
        Annotated[int, Field(ge=1, le=8192)] | list[Annotated[int, Field(ge=1, le=8192)]] | None
    ) = Field(
        default=None,
        description="Height and width in pixels that a column of images (kind: image, cells are "
        "paths beside the file) is brought to, one "
        "number for both; null: the images' own, which must be equal.",
    )
    transforms: Annotated[list[Part] | None, OnShelf("transforms")] = Field(
        default=None, description="The transforms of this column instead of those of its kind."
    )

    @model_validator(mode="after")
    def _size_is_of_images(self) -> ColumnOptions:
        if self.size is not None and self.kind != "image":
            raise ValueError("size needs kind image")
        if isinstance(self.size, list) and len(self.size) != 2:
            raise ValueError("size must be one number or [height, width]")
        return self

    @property
    def pixels(self) -> tuple[int, int] | None:
        """(height, width) of `size`."""
        if self.size is None:
            return None
        return (
            (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])
        )


class Data(Options):
    """Which rows, which columns, and how they become tensors."""

    source: Annotated[Part, OnShelf("sources")] = Field(
        description="Where rows come from: a path, or a source with its options."
    )
    target: str | list[str] | None = Field(
        default=None, description="The column to predict, or several."
    )
    columns: dict[str, ColumnOptions] = Field(
        default={}, description="Options of single columns, by name."
    )
    split: Annotated[Part | None, OnShelf("splits")] = Field(
        default=None,
        description="How rows are divided into train, validation and test; rows the source itself "
        "assigns stay there.",
    )
    transforms: Annotated[dict[Kind, list[Part]], OnShelf("transforms")] = Field(
        default={}, description="Transforms by kind of column; a kind not named keeps its defaults."
    )
    augmentations: Annotated[list[Part], OnShelf("augmentations")] = Field(
        default=[], description="Random changes of training batches."
    )
    test_time_augmentation: list[Literal["flip", "shift"]] = Field(
        default=[],
        description="Further views of an image whose predictions are averaged, in evaluation and "
        "prediction: flip (mirrored), shift (moved by a "
        "pixel, two ways). Training is not changed.",
    )
    duplicates: Literal["keep", "drop"] = Field(
        default="keep", description="What to do with rows that repeat another one exactly."
    )
    missing_rows: Literal["keep", "drop"] = Field(
        default="keep", description="drop leaves out rows with a missing input value; keep imputes."
    )
    missing_target: Literal["error", "drop"] = Field(
        default="error", description="What to do with rows whose target is missing."
    )
    checks: Literal["warn", "error", "off"] = Field(
        default="warn", description="What happens when the checks suspect a leak or duplicates."
    )
    cache: bool = Field(
        default=True, description="Keep the table memory-mapped on disk for the next start."
    )

    @property
    def targets(self) -> tuple[str, ...]:
        """The target columns, in the order given."""
        return (
            ()
            if self.target is None
            else (self.target,)
            if isinstance(self.target, str)
            else tuple(self.target)
        )


class Regularization(Options):
    """What keeps a model from learning its training rows by heart."""

    l1: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the sum of absolute weights, added to the loss (matrices only).",
    )
    l2: float = Field(
        default=0.0,
        ge=0,
        description="Weight of half the sum of squared weights, added to the loss (matrices only).",
    )
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of activations dropped; null leaves the model's own option.",
    )
    early_stopping: Annotated[Part | None, OnShelf("watchers", fixed="early_stopping")] = Field(
        default=None,
        description="Stop when the validation score no longer improves; true takes the defaults.",
    )
    restore_best: bool = Field(
        default=True,
        description="Release the weights of the best evaluation, not the last; needs a validation "
        "split.",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay per step of the exponential moving average of weights that is evaluated "
        "and released.",
    )


class LowRank(Options):
    """Low-rank adaptation (LoRA): learnt weights stay, and narrow paths beside them learn."""

    rank: int = Field(default=8, ge=1, le=4096, description="Rank of the two low-rank matrices.")
    alpha: float = Field(
        default=16.0,
        gt=0,
        description="The output of the low-rank matrices is multiplied by alpha / rank.",
    )
    targets: list[str] | None = Field(
        default=None,
        description="Linear layers that LoRA adapts, by name (* for anything); null: all inside "
        "the model's blocks.",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout rate of the inputs of the matrices."
    )
    base: Literal["float32", "int8", "nf4"] = Field(
        default="float32",
        description="How the frozen matrices are stored during training: float32, 8 bits, or "
        "4 bits (nf4, QLoRA). The artifact is float32.",
    )


class FineTune(Options):
    """Which weights of a model move, and how fast each."""

    freeze: list[str] = Field(
        default=[],
        description="Parameters that are frozen, by name (* for anything), as embeddings.*.",
    )
    thaw: list[str] = Field(
        default=[], description="Parameters that train although freeze or lora would freeze them."
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Each block, counted from the output, learns at this share of the rate of the "
        "one after it; 1: all at one rate.",
    )
    rates: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default={},
        description="Shares of the learning rate by parameter name (* for anything), as head.*: "
        "10.",
    )
    lora: LowRank | None = Field(
        default=None,
        description="Train low-rank matrices beside the weights (LoRA), and newly initialized "
        "parameters; the rest is frozen.",
    )


class ProgressiveResizing(Options):
    """How images grow during training."""

    start: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Share of the full height and width in the first update.",
    )
    until: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="Share of all updates after which images have full size.",
    )
    multiple: int = Field(
        default=4, ge=1, le=1024, description="Sides on the way are multiples of this many pixels."
    )


class Train(Options):
    """How long, how large, how exactly."""

    epochs: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="Passes over the training rows; this or steps.",
    )
    steps: int | None = Field(default=None, gt=0, description="Optimizer updates; this or epochs.")
    least_steps: int = Field(
        default=0,
        ge=0,
        description="Updates made at least, however few an epoch has; a default where neither "
        "epochs nor steps are given.",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default=64, description="Examples of one update; all: every training row."
    )
    progressive_resizing: ProgressiveResizing | None = Field(
        default=None,
        description="Smaller images early in training, which cost less; evaluation uses the full "
        "size.",
    )
    group_by_length: bool = Field(
        default=True,
        description="Bring texts, sequences and recordings of like length together, so that "
        "batches hold little padding.",
    )
    micro_batch: int | None = Field(
        default=None,
        gt=0,
        description="Examples of one forward pass; gradients of a batch are accumulated exactly "
        "over several. Null: the batch.",
    )
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="Largest norm of the gradient; longer ones are shortened to it.",
    )
    clip_value: float | None = Field(
        default=None, gt=0, description="Largest size of each entry of the gradient."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the forward pass; weights stay float32. auto: by rule over "
        "hardware and work per step.",
    )
    compile: bool | Literal["auto"] = Field(
        default="auto", description="Whether torch.compile is used; auto: by rule."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="auto, cpu, cuda, cuda:N or mps.",
    )
    threads: int | None = Field(
        default=None,
        gt=0,
        le=4096,
        description="CPU threads; null: by rule, one or one per core (at most OMP_NUM_THREADS). "
        "Recorded, since it changes the last bits.",
    )
    report_every: int | None = Field(
        default=None,
        gt=0,
        description="Steps between reports of the training loss; null: about 100 per run.",
    )
    evaluate_every: int | None = Field(
        default=None,
        gt=0,
        description="Steps between evaluations on the validation split; null: once an epoch.",
    )
    save_every: int | None = Field(
        default=None,
        gt=0,
        description="Steps between checkpoints; null: with every evaluation, at most 20 per run.",
    )
    keep: int = Field(default=2, ge=1, le=1000, description="Newest checkpoints kept.")
    on_nan: Literal["stop", "skip", "roll_back"] = Field(
        default="stop",
        description="A NaN or infinity in loss, gradient or running statistics: stop before the "
        "update, skip the update, or go back to the last "
        "planned checkpoint and leave out every update from there to it.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="All randomness is a function of it and the step."
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        le=100,
        description="k-fold cross-validation over the rows outside the test split.",
    )


_HOST = r"([\w.\-]+|\[[0-9A-Fa-f:.]+\])"
_RAY_ADDRESS = rf"auto|local|{_HOST}:\d{{1,5}}|ray://{_HOST}(:\d{{1,5}})?"


class Objective(Options):
    """What a tuning looks for."""

    metric: str = Field(
        min_length=1,
        description="A validation score of the recipe; or loss; or seconds (of a trial's "
        "training), or parameters (how many).",
    )
    direction: Literal["higher", "lower"] | None = Field(
        default=None,
        description="Which is better; null: as the metric says, lower for loss, seconds and "
        "parameters.",
    )


class Tune(Options):
    """Which options are searched, for what, for how long. No part of what a training is: danlu
    train leaves it out."""

    space: dict[str, Any] = Field(
        min_length=1,
        description="Dotted name of an option of the recipe: what is tried. A list: choices. "
        "{low, high}: a range, with log: true on a "
        "logarithmic scale, with step: only multiples from low on; whole numbers where the option "
        "takes no others or low, high and "
        "step are whole. when: {other: choice} (or a list of choices): only together with that "
        "choice.",
    )
    objectives: list[Objective] | None = Field(
        default=None,
        min_length=1,
        max_length=4,
        description="The scores to optimize; null: the score that selects the best checkpoint.",
    )
    trials: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Total number of trials; null: 64, or no limit where minutes are given.",
    )
    minutes: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Total minutes, over every start; no trial begins after them.",
    )
    sampler: Annotated[Part | None, OnShelf("samplers")] = Field(
        default=None, description="The sampler that suggests the values of the next trial."
    )
    pruner: Annotated[Part | None, OnShelf("pruners")] = Field(
        default=None, description="The pruner that ends trials that fall behind."
    )
    on: Literal["auto", "vectorised", "processes", "one_by_one", "ray"] = Field(
        default="auto",
        description="How trials run: many as one program, in processes, one by one, or on a Ray "
        "cluster; auto: by measurement.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Trials at a time, of processes and ray; null: one per core, or what the "
        "cluster has.",
    )
    hang_minutes: float = Field(
        default=60.0,
        gt=0,
        le=1e6,
        description="Of processes and ray: a worker without a report for this long is ended, and "
        "its trial goes on in another worker.",
    )
    address: str | None = Field(
        default=None,
        description="Of ray: the address of a running cluster (HOST:PORT, ray://HOST:PORT, or auto "
        "for the one of RAY_ADDRESS), with --allow-remote; null or local: a local one is started.",
    )
    storage: str | None = Field(
        default=None,
        json_schema_extra={"pattern": r"^(sqlite|postgresql|mysql)(\+\w+)?://"},
        description="Where trials are stored: sqlite:///FILE, postgresql://... or mysql://...; "
        "null: study.sqlite in the study's folder. A server, and a file outside that folder, need "
        "--allow-remote.",
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        le=100,
        description="Each trial is k trainings, and its score the mean over k folds; null: one "
        "training.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="Of the suggestions: the same seed and results, the same suggestions.",
    )

    @field_validator("address")
    @classmethod
    def _address_is_of_ray(cls, value: str | None) -> str | None:
        # Ray imports the module that any other word before :// names.
        if value is not None and not re.fullmatch(_RAY_ADDRESS, value):
            raise ValueError("must be auto, local, HOST:PORT or ray://HOST:PORT")
        return value

    @field_validator("storage")
    @classmethod
    def _storage_is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @property
    def budget(self) -> int | None:
        """Trials in all; None where only minutes limit them."""
        return self.trials if self.trials is not None else None if self.minutes is not None else 64


class Compress(Options):
    """How the artifact is made smaller once it is trained. No part of what a training is."""

    steps: Annotated[list[Part], OnShelf("compressors")] = Field(
        min_length=1,
        description="Compressors, in order; `compress: [prune, int8_static]` is short for it.",
    )
    max_drop: float | None = Field(
        default=None,
        ge=0,
        description="The most that the deciding score may get worse, in its own units; beyond it "
        "nothing is kept.",
    )
    score: str | None = Field(
        default=None,
        description="The score that decides; null: the recipe's first metric, else the loss.",
    )


@dataclass(frozen=True)
class Recipe:
    """A checked recipe with every default filled in."""

    name: str
    task: Part
    data: Data
    model: Part
    loss: Part
    metrics: tuple[Part, ...]
    optimizer: Part
    schedule: Part
    regularization: Regularization
    finetune: FineTune
    train: Train
    watchers: tuple[Part, ...]
    raw: Mapping[str, Any] = field(
        repr=False, compare=False
    )  # as written, overrides applied; what tuning edits
    path: str = field(default="", compare=False)  # the file it came from; "" for a dict
    tune: Tune | None = field(
        default=None, compare=False
    )  # what is searched: no part of what a training is
    space: Space = field(default=(), repr=False, compare=False)  # tune.space, checked
    compress: Compress | None = field(
        default=None, compare=False
    )  # what is made of the artifact: no part of what a training is

    def as_dict(self) -> dict[str, Any]:
        """What is trained, as plain data, every default written out; reading it back gives an equal
        recipe. The sections tune and compress are no part."""
        return {
            "name": self.name,
            "task": self.task.as_dict(),
            "data": as_plain(self.data),
            "model": self.model.as_dict(),
            "loss": self.loss.as_dict(),
            "metrics": [part.as_dict() for part in self.metrics],
            "optimizer": self.optimizer.as_dict(),
            "schedule": self.schedule.as_dict(),
            "regularization": as_plain(self.regularization),
            "finetune": as_plain(self.finetune),
            "train": as_plain(self.train),
            "watchers": [part.as_dict() for part in self.watchers],
        }


NAME = r"[\w.\- ]{1,100}"  # what a recipe may be called; the run folder bears the name
PARTS = {
    "task": "tasks",
    "model": "models",
    "loss": "losses",
    "metrics": "metrics",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "watchers": "watchers",
}
SECTIONS: dict[str, type[Options]] = {
    "data": Data,
    "regularization": Regularization,
    "finetune": FineTune,
    "train": Train,
    "tune": Tune,
    "compress": Compress,
}
KEYS = (
    "name",
    "task",
    "data",
    "model",
    "loss",
    "metrics",
    "optimizer",
    "schedule",
    "regularization",
    "finetune",
    "train",
    "watchers",
    "tune",
    "compress",
)
LISTS = ("metrics", "watchers")
SHELVES_OF_DATA = ("sources", "splits", "transforms", "augmentations")
# What every recipe has unless a task, a model, an optimizer or the user says otherwise, in that
# order.
DEFAULTS: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "constant",
    "metrics": [],
    "train.epochs": 20,
    "train.least_steps": 1000,
    "data.split": "random",
    "tune.sampler": "bayesian",
    "tune.pruner": "none",
    "watchers": ["console", "jsonl", "tensorboard", "samples", "sanity", "divergence"],
}
