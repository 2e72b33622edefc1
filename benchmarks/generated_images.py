"""Scores of generated images, computed with a classifier, beside the scores of real images.

    python benchmarks/generated_images.py RUN CLASSIFIER            runs or artifacts of danlu, trained on the same images
    python benchmarks/generated_images.py RUN CLASSIFIER --json

The first row compares generated images with the test split: the same number, of the same classes.
The second compares the first training images with the test split, which is the best that a
generator can reach; it has no class agreement, because training images are not generated for a
class."""

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
    contents = artifacts.read(classifier)
    built = {}
    for name in METRICS if model.task.classes else METRICS[1:]:
        options = registry.config("metrics", name).model_validate({"classifier": classifier})
        metric = registry.build_metric(Part(name, options), model.task)
        metric.observer.use_classifier(
            contents.module,
            contents.described or contents.preprocessor.inputs,
            contents.task.output.names,
        )
        built[name] = metric
    return built


def score(
    model: Artifact, rows: Rows, test: np.ndarray, metrics: dict[str, Any], real: np.ndarray | None
) -> dict[str, Any]:
    """The scores of generated images, or of the `real` ones, against the images of `test`."""
    counts: dict[str, dict[str, list[torch.Tensor]]] = {name: {} for name in metrics}
    with torch.inference_mode():
        for places in torch.arange(len(test)).split(rows_at_once(rows)):
            batch = rows.gather(torch.from_numpy(test)[places])
            images = (
                model.module(batch.inputs)
                if real is None
                else rows.gather(torch.from_numpy(real)[places]).inputs["image"]
            )
            for name, metric in metrics.items():
                for key, value in metric.count(images, batch).items():
                    counts[name].setdefault(key, []).append(value)
    scores: dict[str, Any] = {}
    for name, metric in metrics.items():
        joined = metric.joined
        total = {
            key: torch.cat(each) if joined else torch.stack(each).sum(0)
            for key, each in counts[name].items()
        }
        each = metric.score(total)
        scores |= each if isinstance(each, dict) else {name: each}
    return scores


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("classifier")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model = load(arguments.run)
    rows, splits = rows_of(model)
    metrics, test = metrics_of(model, arguments.classifier), splits["test"]
    real = splits["train"][: len(test)]
    scores = {"generated": score(model, rows, test, metrics, None)}
    if len(real) == len(test):
        apart = {name: metric for name, metric in metrics.items() if name != "class_agreement"}
        scores["real, of the training split"] = score(model, rows, test, apart, real)
    if arguments.json:
        json.dump({"rows": len(test), "scores": scores}, sys.stdout, indent=1)
        return
    names = list(scores["generated"])
    print(f"{len(test):,} images a row\n")
    print(
        table(
            ["images", *names],
            [[label, *(_shown(row.get(name)) for name in names)] for label, row in scores.items()],
        )
    )


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()
