"""How good generated images are, in the eyes of a classifier, beside what real images score.

    python benchmarks/generated_images.py RUN CLASSIFIER            both run folders or artifacts of danlu, over the same images
    python benchmarks/generated_images.py RUN CLASSIFIER --json

Two rows: as many generated images as the test split has, of its classes, against the test split;
and as many real training images against the test split (the first; nothing was asked of them, so no
agreement is told): what a generator can hope for."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch

from danlu import load, registry
from danlu.artifact import artifact as artifacts
from danlu.artifact.prediction import Artifact
from danlu.data import cache
from danlu.data.batches import Rows, rows_at_once
from danlu.data.dataset import make_examples, split_rows, used_rows
from danlu.recipe import Part, Train
from danlu.system.placement import placement_for
from measuring import table

METRICS = ("class_agreement", "frechet_distance", "sample_precision_recall")


def rows_of(model: Artifact) -> tuple[Rows, dict[str, np.ndarray]]:
    """All rows of the run's own data as the generator takes them, and its splits."""
    recipe = model.recipe
    whole, _ = cache.load_table(recipe.data.source, recipe.data.columns, recipe.data.cache)
    alive = used_rows(whole, recipe)
    targets = {name: whole.columns[name] for name in recipe.data.targets}
    examples = make_examples(
        model.task, model.preprocessor, whole, targets, split_rows(whole, alive, recipe), alive
    )
    return Rows(
        examples.inputs, model.preprocessor.pixels, None, placement_for(Train())
    ), examples.splits


def metrics_of(model: Artifact, classifier: str) -> dict[str, Any]:
    """The metrics, looking through the classifier."""
    found = artifacts.read(classifier)
    built = {}
    for name in METRICS if model.task.classes else METRICS[1:]:
        options = registry.config("metrics", name).model_validate({"classifier": classifier})
        metric = registry.build_metric(Part(name, options), model.task)
        metric.observer.use_classifier(
            found.module, found.described or found.preprocessor.inputs, found.task.output.names
        )
        built[name] = metric
    return built


def score(
    model: Artifact, rows: Rows, test: np.ndarray, metrics: dict[str, Any], real: np.ndarray | None
) -> dict[str, Any]:
    """The scores of generated images, or of the `real` ones, against the images of `test`."""
    held: dict[str, dict[str, list[torch.Tensor]]] = {name: {} for name in metrics}
    with torch.inference_mode():
        for places in torch.arange(len(test)).split(rows_at_once(rows)):
            batch = rows.gather(torch.from_numpy(test)[places])
            made = (
                model.module(batch.inputs)
                if real is None
                else rows.gather(torch.from_numpy(real)[places]).inputs["image"]
            )
            for name, metric in metrics.items():
                for key, value in metric.count(made, batch).items():
                    held[name].setdefault(key, []).append(value)
    found: dict[str, Any] = {}
    for name, metric in metrics.items():
        joined = metric.joined
        total = {
            key: torch.cat(each) if joined else torch.stack(each).sum(0)
            for key, each in held[name].items()
        }
        each = metric.score(total)
        found |= each if isinstance(each, dict) else {name: each}
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("classifier")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model = load(given.run)
    rows, splits = rows_of(model)
    metrics, test = metrics_of(model, given.classifier), splits["test"]
    real = splits["train"][: len(test)]
    scores = {"generated": score(model, rows, test, metrics, None)}
    if len(real) == len(test):
        apart = {name: each for name, each in metrics.items() if name != "class_agreement"}
        scores["real, of the training split"] = score(model, rows, test, apart, real)
    if given.json:
        json.dump({"rows": len(test), "scores": scores}, sys.stdout, indent=1)
        return
    names = list(scores["generated"])
    print(f"{len(test):,} images a row\n")
    print(
        table(
            ["images", *names],
            [[label, *(_told(each.get(name)) for name in names)] for label, each in scores.items()],
        )
    )


def _told(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()
