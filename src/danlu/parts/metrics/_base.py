"""What a metric is: `Metric` counts over batches, `TextMetric` compares texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.parts.metrics._image_features import ImageFeatures
    from danlu.terms import Batch

# One score, or several scores and tables by their full names ("price/rmse", a confusion matrix as
# nested lists). Never NaN: None where a score has no meaning (AUROC with one class).
Score: TypeAlias = float | Mapping[str, object] | None


class Metric(ABC):
    """A score of a whole split, from counts of its batches.

    It must not depend on how the split was cut into batches: what is added are whole numbers or
    float64 sums, and what depends on order, or on rounding near a tie, is taken from all rows
    (`joined`).

    label    the score's name where it is not the part's own (top_5), else ""
    joined   whether counts are per-row values, concatenated in row order, and not sums
    """

    label: str = ""
    joined: bool = False

    @abstractmethod
    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Counts of one batch by name: sums over its rows (float64 or int64), or (`joined`) one
        value per row. Targets are those that the task encoded, never mixed."""

    @abstractmethod
    def score(self, total: dict[str, Tensor]) -> Score:
        """The score, from the counts of all batches, added or concatenated."""


class TextMetric(ABC):
    """A score of generated texts, taken when training ends and by `danlu evaluate`; its part sets
    READS_TEXT = True.

    label   the score's name where it is not the part's own, else ""
    """

    label: str = ""

    @abstractmethod
    def compare(self, predictions: Sequence[str], references: Sequence[str]) -> Score:
        """The score of a whole split's texts; the task's `references` are the right ones."""


class ComparesFeatures(Metric):
    """A metric that looks at images through a classifier that another run trained.

    observer   what turns images into features
    """

    observer: ImageFeatures


@dataclass(frozen=True)
class MetricFacts:
    """What a metric part says of itself; `danlu.registry.metric_facts(name)` reads it."""

    # The values of a task's ASKS that the metric can score (danlu.parts.tasks._base.TaskFacts).
    fits: tuple[str, ...] = field(metadata={"name": "FITS"})

    # Which way a score improves.
    better: Literal["higher", "lower"] = field(metadata={"name": "BETTER"})

    # Whether the part builds a TextMetric.
    reads_text: bool = field(default=False, metadata={"name": "READS_TEXT"})
