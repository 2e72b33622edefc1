"""Share of generated images in which a classifier sees the class that was asked for.

"class_agreement/real" is the share of real images in which the same classifier sees their own
class, which a generator can hardly exceed. The classifier is one that danlu trained on classes of
the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.errors import DataError, Problem, RecipeError
from danlu.parts.metrics._base import ComparesFeatures
from danlu.parts.metrics._image_features import ImageFeatures
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import GeneratesImages
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("samples",)
BETTER = "higher"


class Config(Options):
    """The classifier."""

    classifier: str = Field(description="A run or artifact that tells the classes apart.")


class ClassAgreement(ComparesFeatures):
    """Counts rows, and those whose likeliest class is the one asked for."""

    def __init__(self, observer: ImageFeatures, names: tuple[str, ...]) -> None:
        self.observer = observer
        self.names = names  # of the classes that the generator knows

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """agreed, agreed_real, rows int64."""
        wanted = self._numbers(batch.inputs["class"].reshape(-1))
        counts = {"rows": batch.rows.new_full((), len(batch))}
        for name, images in (("agreed", outputs), ("agreed_real", batch.inputs["image"])):
            logits = self.observer(images)[1]
            assert logits is not None
            counts[name] = (logits.argmax(dim=1) == wanted).sum()
        return counts

    def _numbers(self, classes: Tensor) -> Tensor:
        """The class numbers as the classifier numbers them."""
        number_of = {name: number for number, name in enumerate(self.observer.names)}
        strange = [name for name in self.names if name not in number_of]
        if strange:
            raise DataError(
                f"the classifier has no class {strange[0]!r}; its classes are "
                f"{', '.join(self.observer.names[:20])}.",
                where=str(self.observer.classifier),
                hint="train one on the same target column",
            )
        return classes.new_tensor([number_of[name] for name in self.names])[classes]

    def score(self, total: dict[str, Tensor]) -> dict[str, float | None]:
        """Two shares."""
        return {
            "class_agreement": ratio(total["agreed"], total["rows"]),
            "class_agreement/real": ratio(total["agreed_real"], total["rows"]),
        }


def build(config: Config, task: GeneratesImages) -> ClassAgreement:
    """The metric. RecipeError for a generator without classes."""
    if not task.classes:
        raise RecipeError(
            [
                Problem(
                    "recipe",
                    "metrics: class_agreement needs a class to ask for.",
                    "name a column of classes as data.target",
                )
            ]
        )
    return ClassAgreement(ImageFeatures(config.classifier, task.image), task.class_names)
