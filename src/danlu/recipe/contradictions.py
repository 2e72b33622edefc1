"""Options that are valid by themselves and contradict each other."""

from __future__ import annotations

from typing import Any

from danlu.recipe.resolve import Resolver
from danlu.recipe.tree import mapping_or_empty


def note_contradictions(
    checking: Resolver, parts: dict[str, Any], sections: dict[str, Any]
) -> None:
    """Note options that are valid by themselves and contradict each other.

    `parts` are the resolved parts by key, `sections` the options of each section."""
    catalogue, tree = checking.catalogue, checking.tree

    def add(path: tuple[Any, ...], message: str, hint: str = "") -> None:
        if path not in checking.wrong:
            checking.add(path, message, hint)

    train, data, regularization = (sections.get(key) for key in ("train", "data", "regularization"))
    task, loss, model, optimizer = (
        parts.get(key) for key in ("task", "loss", "model", "optimizer")
    )
    if task is not None:
        facts = catalogue.task_facts(task.name)
        losses, metrics = facts.losses, facts.metrics
        if loss is not None and losses and loss.name not in losses:
            add(
                ("loss",),
                f"the loss {loss.name} does not fit the task {task.name}.",
                f"it takes {', '.join(losses)}",
            )
        if loss is None and "loss" not in tree:
            add((), f"the task {task.name} needs a loss.", f"it takes {', '.join(losses)}")
        for number, metric in enumerate(parts["metrics"]):
            if metrics and metric is not None and metric.name not in metrics:
                add(
                    ("metrics", number),
                    f"the metric {metric.name} does not fit the task {task.name}.",
                    f"it takes {', '.join(metrics)}",
                )
        least, most = facts.targets
        if data is not None and not least <= len(data.targets) <= (10**9 if most is None else most):
            wanted = (
                f"exactly {least}"
                if least == most
                else f"at least {least}"
                if most is None
                else f"{least} to {most}"
            )
            add(("data", "target"), f"the task {task.name} takes {wanted} target column(s), and "
                                    f"data.target names {len(data.targets)}.",
                "name the column to predict as data.target")  # fmt: skip
    if data is not None:
        for target in data.targets:
            if target in data.columns and not data.columns[target].use:
                add(
                    ("data", "columns", target),
                    f"{target} is the target, and its column is dropped.",
                    "keep one of the two",
                )
        if len(set(data.targets)) < len(data.targets):
            add(("data", "target"), "data.target names a column twice.")
    if train is not None:
        raw = mapping_or_empty(tree.get("train"))
        if raw.get("epochs") is not None and raw.get("steps") is not None:
            add(
                ("train", "steps"),
                "train.epochs and train.steps are both given.",
                "keep one of the two, or set the other to null",
            )
        sound = ("train", "batch_size") not in checking.wrong
        if (
            sound
            and isinstance(train.batch_size, int)
            and train.micro_batch
            and train.micro_batch > train.batch_size
        ):
            add(("train", "micro_batch"), f"train.micro_batch ({train.micro_batch}) is larger "
                                          f"than train.batch_size ({train.batch_size}).",
                "a batch is made of micro batches")  # fmt: skip
        if (
            optimizer is not None
            and catalogue.optimizer_facts(optimizer.name).full_batch
            and train.batch_size != "all"
        ):
            add(("train", "batch_size"), f"{optimizer.name} takes all training rows in one "
                                         f"update, and train.batch_size is {train.batch_size}.",
                "leave batch_size out (micro_batch limits memory), or choose sgd")  # fmt: skip
        schedule = parts.get("schedule")
        if (
            schedule is not None
            and train.steps is not None
            and schedule.options.warmup >= max(train.steps, 2)
        ):
            add(
                ("schedule", "warmup"),
                f"the warm-up ({schedule.options.warmup:g} steps) is as long as training "
                f"({train.steps} steps).",
            )
    if regularization is not None and model is not None:
        if regularization.dropout is not None and "dropout" not in type(model.options).model_fields:
            add(
                ("regularization", "dropout"),
                f"the model {model.name} takes no dropout.",
                "leave it out, or choose another model",
            )
        other = mapping_or_empty(tree.get("model")).get("dropout")
        if (
            regularization.dropout is not None
            and other is not None
            and other != regularization.dropout
        ):
            add(
                ("regularization", "dropout"),
                "dropout is given twice: in regularization and in model.",
                "keep one of the two",
            )
