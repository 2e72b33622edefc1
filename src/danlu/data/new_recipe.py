"""`danlu new`: drafts a recipe for a data file, with inferred task and model and every option.

Every column is listed with its inferred kind and the reason. Guesses are written as comments, so
that nothing is switched on that the user has not read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from danlu import registry
from danlu.data import cache, checks
from danlu.errors import DataError, did_you_mean, nearest
from danlu.recipe import Options, Part, Recipe, as_plain, is_text, read, read_yaml, write_yaml
from danlu.recipe import check_recipe as check_tree
from danlu.terms import Column, Json, Table

LIKELY_TARGETS = (
    "target",
    "label",
    "labels",
    "class",
    "y",
    "outcome",
    "response",
    "output",
    "category",
    "diagnosis",
    "price",
    "目标",
    "标签",
    "类别",
)
MOST_CLASSES = 20  # up to so many distinct whole numbers are taken for classes
ROWS_A_CLASS = 5  # least number of rows per class on average
MOST_LISTED = 200  # columns that are listed, one per line
USUAL = (
    "epochs",
    "least_steps",
    "batch_size",
    "clip_norm",
    "evaluate_every",
    "save_every",
    "precision",
    "device",
    "seed",
)


def draft(
    data_path: str | Path, target: str | Sequence[str] | None = None, task: str | None = None
) -> str:
    """The text of a commented recipe (YAML) for a data file or folder; danlu.recipe.read reads it
    as it is.

    target   the column to predict, or several (a list, or one string with commas). A file of text
             alone needs none: its next token is predicted
    task     the name of a task; None: inferred from the target
    Raises DataError where the file cannot be read, where no target is named (the message proposes
    some), and where no task can predict it.

    >>> import danlu, pathlib
    >>> rows = "".join(f"{number},{number % 2}\\n" for number in range(40))
    >>> _ = pathlib.Path("rows.csv").write_text("number,odd\\n" + rows)
    >>> print(danlu.draft("rows.csv", target="odd"))  # doctest: +ELLIPSIS
    # ...
    """
    path = str(data_path)
    if not is_text(path):
        raise DataError(
            "the name holds bytes that are not UTF-8, and a recipe is text in UTF-8.",
            where=path,
            hint="rename the file, or go to its folder",
        )
    source = _source(path)
    table, _ = cache.load_table(source, {}, True)
    alone = target is None and (
        _needs_no_target(task) or (task is None and _is_running_text(table))
    )
    targets = [] if alone else _targets(table, target)
    chosen, why = (
        ("language_modeling", "a text and nothing else")
        if alone and task is None
        else _task(table, targets, task)
    )
    data: dict[str, Any] = {"source": _source_in_recipe(path, source)}
    if targets:
        data["target"] = targets[0] if len(targets) == 1 else targets
    named = {
        name: "category"
        for name in targets
        if table.columns[name].kind == "text" and chosen == "classification"
    }
    if named:
        data["columns"] = named
    lost = (
        int(np.any([table.columns[name].is_missing() for name in targets], axis=0).sum())
        if targets
        else 0
    )
    if lost and not registry.task_facts(chosen).targets_are_inputs:
        data["missing_target"] = "drop"
    tree = {"task": chosen, "data": data, "model": _model(table, targets, chosen)}
    recipe = read(tree, registry)
    text = "\n".join(_lines(table, recipe, why, lost)) + "\n"
    _prove(text, recipe)
    return text


def _needs_no_target(task: str | None) -> bool:
    return task in registry.names("tasks") and registry.task_facts(task).targets[0] == 0


def _is_running_text(table: Table) -> bool:
    """Whether the table has one text column only (besides the paths of its pieces)."""
    kinds = {name: column.kind for name, column in table.columns.items() if name != "path"}
    return list(kinds.values()) == ["text"]


def _model(table: Table, targets: Sequence[str], task: str) -> str:
    """The name of the first model to try: the task's default, else one for the kinds of the
    inputs."""
    own = registry.defaults("tasks", task).get("model")
    kinds = {column.kind for name, column in table.columns.items() if name not in targets}
    if own is not None:
        return str(own)
    for kind, model in (
        ("image", "cnn"),
        ("audio", "audio_cnn"),
        ("frames", "rnn"),
        ("sequence", "rnn"),
    ):
        if kind in kinds:
            return model
    return "text_cnn" if kinds == {"text"} else "realmlp"


def _prove(text: str, recipe: Recipe) -> None:
    """Checks that the drafted text, comments included, is read as the recipe it was written for."""
    tree, where = read_yaml(text, "draft")
    if check_tree(tree, where, registry) != recipe:
        raise AssertionError("the drafted text is another recipe")


# --- what the data is -----------------------------------------------------------------------------


def _source(path: str) -> Part:
    there = Path(path)
    folder = there.parent if there.parent.is_dir() else Path()
    if not any(letter in path for letter in "*?[") and not there.exists():
        near = nearest(there.name, [name.name for name in folder.iterdir()], 1)
        hint = f"did you mean {folder / near[0]}?" if near else "look at the path"
        raise DataError("there is no such file or folder.", where=path, hint=hint)
    source_name = registry.source_for(path)
    if source_name is None:
        endings = sorted(
            {
                suffix
                for name in registry.names("sources")
                for suffix in registry.source(name).suffixes
            }
        )
        raise DataError(
            "no source is known for it.", where=path, hint=f"known endings: {', '.join(endings)}"
        )
    return Part(source_name, registry.config("sources", source_name).model_validate({"path": path}))


def _source_in_recipe(path: str, source: Part) -> str | dict[str, str]:
    """The source as the recipe writes it: the path alone, unless that is the name of a source."""
    return {"name": source.name, "path": path} if path in registry.names("sources") else path


def _targets(table: Table, target: str | Sequence[str] | None) -> list[str]:
    names = list(table.columns)
    if target is None:
        others = [name for name in names if table.columns[name].kind != "image"]
        if len(others) == 1 and len(others) < len(names):
            return others  # images and one other column: that is the target
        likely = [name for name in names if name.lower() in LIKELY_TARGETS]
        likely += [name for name in names[-1:] if name not in likely]
        raise DataError(
            f"which column is to be predicted? It has {_listed(names)}.",
            where=table.origin,
            hint=f"say --target COLUMN; likely: {', '.join(likely)}",
        )
    wanted = [target] if isinstance(target, str) else list(target)
    if isinstance(target, str) and target not in names and "," in target:
        wanted = [name.strip() for name in target.split(",")]
    for name in wanted:
        if name not in names:
            hint = did_you_mean(name, names) or "name one of its columns"
            raise DataError(
                f"there is no column {name!r}. It has {_listed(names)}.",
                where=table.origin,
                hint=hint,
            )
    if len(wanted) == len(names):
        raise DataError(
            "every column is a target: nothing is left to learn from.", where=table.origin
        )
    return list(dict.fromkeys(wanted))


def _task(table: Table, targets: list[str], task: str | None) -> tuple[str, str]:
    """(the task, why): the one named, or the one that predicts what the targets hold."""
    columns = [table.columns[name] for name in targets]
    if task is not None:
        if task not in registry.names("tasks"):
            tasks = registry.names("tasks")
            raise DataError(
                f"there is no task {task!r}. There are {', '.join(tasks)}.",
                hint=did_you_mean(task, tasks),
            )
        return task, "as you said"
    guesses = [_task_of(table, column) for column in columns]
    if len(columns) == 1:
        return guesses[0]
    if all(_is_yes_or_no(column) for column in columns):
        return "multi_label", f"{len(columns)} columns of yes or no"
    if all(column.kind == "number" for column in columns) and {name for name, _ in guesses} == {
        "regression"
    }:
        return "regression", f"{len(columns)} columns of numbers"
    return "multi_task", "; ".join(
        f"{column.name}: {name}, {why}" for column, (name, why) in zip(columns, guesses)
    )


def _is_yes_or_no(column: Column) -> bool:
    if column.kind == "number" and column.values.ndim == 1:
        return bool(np.isin(column.values[~column.is_missing()], (0, 1)).all())
    return column.kind == "boolean"


def _task_of(table: Table, column: Column) -> tuple[str, str]:
    """(the task that predicts a column, why)."""
    present = ~column.is_missing()
    if not present.any():
        raise DataError(
            f"the target {column.name} holds no value.",
            where=table.origin,
            hint="name another column",
        )
    if column.kind == "boolean":
        return "classification", "it holds true and false"
    if column.kind == "category":
        return "classification", f"it holds {len(column.categories):,} distinct words"
    if column.kind == "number":
        return _task_of_numbers(column.values[present])
    if column.kind == "sequence":
        return "token_classification", "it holds a word for every word"
    if column.kind == "text":
        rows = [column.text(int(row)) for row in np.flatnonzero(present)[:20_000]]
        if len(set(rows)) <= len(rows) / ROWS_A_CLASS:
            return "classification", f"it holds {len(set(rows)):,} distinct texts"
    raise DataError(
        f"the target {column.name} holds {column.kind} ({column.reason}), which no task predicts.",
        where=table.origin,
        hint="name another column"
        if column.kind != "text"
        else f"set data.columns.{column.name}.kind: category if they are classes",
    )


def _task_of_numbers(values: np.ndarray) -> tuple[str, str]:
    distinct = np.unique(values)
    whole = values.ndim == 1 and bool((distinct == np.floor(distinct)).all())
    if whole and len(distinct) <= MOST_CLASSES and len(values) >= ROWS_A_CLASS * len(distinct):
        reason = f"it holds {len(distinct)} distinct whole numbers"
        return (
            "classification",
            f"{reason}; where their size matters more than their name, regression"
            if len(distinct) > 2
            else reason,
        )
    return "regression", "it holds numbers"


# --- the text -------------------------------------------------------------------------------------


def _lines(table: Table, recipe: Recipe, why: str, lost: int) -> Iterator[str]:
    """The recipe, line by line."""
    data = recipe.data
    yield (
        f"# {_clean(table.origin)}: {len(table):,} rows, {len(table.columns):,} columns. "
        "Drafted by danlu new."
    )
    yield (
        "# What stands behind a # is the default, or a proposal: remove the # to set it. danlu "
        "show NAME explains a part."
    )
    for notice in (*table.notices, *checks.check_table(table, data)):
        yield f"# Note: {_clean(notice)}"
    yield ""
    yield (
        f"task: {recipe.task.name}  # {_clean(why)}; also: "
        f"{', '.join(name for name in registry.names('tasks') if name != recipe.task.name)}"
    )
    yield ""
    yield "data:"
    sections = recipe.raw["data"]
    yield from _indented(
        write_yaml({key: sections[key] for key in ("source", "target") if key in sections})
    )
    if lost:
        yield f"  missing_target: drop  # {lost:,} rows have no target"
    yield from _columns(table, recipe)
    yield from _split(table, recipe)
    yield from _proposals("  ", data, ("missing_rows", "duplicates", "checks"))
    if recipe.model.name == "cnn":
        yield (
            "  # augmentations: [crop, flip]  # random changes of training images; danlu list "
            "augmentations"
        )
    yield ""
    yield f"model:  # danlu list models: {', '.join(registry.names('models'))}"
    yield f"  name: {recipe.model.name}"
    yield from _proposals("  ", recipe.model.options)
    yield ""
    yield from _part(
        "loss", recipe.loss, f"danlu list losses; {_balance(table, recipe)}".rstrip("; ")
    )
    yield (
        f"# metrics: [{', '.join(metric.name for metric in recipe.metrics)}]  # danlu list metrics"
    )
    yield ""
    yield from _part(
        "optimizer",
        recipe.optimizer,
        f"danlu list optimizers: {', '.join(registry.names('optimizers'))}",
    )
    yield ""
    yield from _part(
        "schedule",
        recipe.schedule,
        f"how the learning rate moves: {', '.join(registry.names('schedules'))}",
    )
    yield ""
    yield "# regularization:"
    yield from _proposals("#   ", recipe.regularization)
    yield ""
    yield "# train:"
    yield from _proposals("#   ", recipe.train, USUAL)


def _columns(table: Table, recipe: Recipe) -> Iterator[str]:
    """Every column with its kind and the reason, as a comment unless the recipe sets the kind."""
    set_here = recipe.data.columns
    mark = "  " if set_here else "  # "
    yield (
        f"{mark}columns:  # what was found; `NAME: drop` leaves a column out, `NAME: category` "
        "reads it as another kind"
    )
    for number, (name, column) in enumerate(table.columns.items()):
        if number == MOST_LISTED:
            yield f"  #   and {len(table.columns) - number:,} more"
            break
        reason = _clean(column.reason.removeprefix(f"{column.kind}: ")) or "as the source says"
        if name in recipe.data.targets:
            reason = f"the target; {reason}"
        if name in set_here:
            yield f"    {_word(name)}: {set_here[name].kind}  # {reason}"
        else:
            yield f"  #   {_word(name)}: {column.kind}  # {reason}"


def _split(table: Table, recipe: Recipe) -> Iterator[str]:
    split = recipe.data.split
    assert split is not None
    if table.split is not None and (np.asarray(table.split) >= 0).any():
        assigned = [
            name
            for number, name in enumerate(("train", "validation", "test"))
            if (np.asarray(table.split) == number).any()
        ]
        yield f"  # The source itself says which rows are {' and '.join(assigned)}; they stay so."
    yield f"  # split: {_flow(split.as_dict())}  # shares of the rows; danlu list splits"
    for name, column in table.columns.items():
        if column.kind == "datetime" and name not in recipe.data.targets:
            present = column.values[~column.is_missing()]
            ordered = len(present) > 1 and bool((np.diff(present) >= 0).mean() > 0.95)
            why = (
                "rows stand in the order of time"
                if ordered
                else "where later rows are what the model will meet"
            )
            yield f"  # split: {_flow({'name': 'by_time', 'column': name})}  # {why}"
    if any(
        column.kind == "number" and name not in recipe.data.targets
        for name, column in table.columns.items()
    ):
        by_kind = _flow({"number": ["impute", {"name": "scale", "by": "quantile"}]})
        yield (
            f"  # transforms: {by_kind}  # by kind of column, instead of the usual ones; danlu "
            "list transforms"
        )


def _balance(table: Table, recipe: Recipe) -> str:
    """A proposal for the loss where one class is rare; '' elsewhere."""
    target = table.columns[recipe.data.targets[0]] if recipe.data.targets else None
    if (
        target is None
        or recipe.task.name != "classification"
        or target.kind != "category"
        or "class_weights" not in type(recipe.loss.options).model_fields
    ):
        return ""
    counts = np.bincount(target.values[target.values >= 0], minlength=len(target.categories))
    counts = counts[counts > 0]
    if not len(counts) or counts.min() >= counts.mean() / 3:
        return ""
    return (
        f"the rarest class has {counts.min() / counts.sum():.1%} of the rows: class_weights: "
        "balanced makes it count more"
    )


def _part(key: str, part: Part, comment: str) -> Iterator[str]:
    """A default part with its options, commented out."""
    yield f"# {key}:  # {comment}"
    yield f"#   name: {part.name}"
    yield from _proposals("#   ", part.options)


def _proposals(indent: str, options: Options, names: Sequence[str] = ()) -> Iterator[str]:
    """Options with their values and meanings, commented out."""
    start = indent if indent.startswith("#") else f"{indent}# "
    for name in names or type(options).model_fields:
        yield from _line(
            start, name, as_plain(getattr(options, name)), _meaning(type(options), name)
        )


def _line(start: str, name: str, value: Json, meaning: str) -> Iterator[str]:
    yield f"{start}{name}: {_flow(value)}{f'  # {meaning}' if meaning else ''}"


def _meaning(config: type[Options], name: str) -> str:
    return _clean(config.model_fields[name].description or "").rstrip(".")


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.rstrip("\n").split("\n")]


def _flow(value: Json) -> str:
    """A value on one line of YAML."""
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{_word(str(key))}: {_flow(entry)}" for key, entry in value.items())
            + "}"
        )
    if isinstance(value, Sequence):
        return "[" + ", ".join(_flow(entry) for entry in value) + "]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value)


def _word(text: str) -> str:
    """A text as YAML on one line, in quotes where it needs them."""
    written = write_yaml([text])[2:].rstrip("\n")
    return (
        json.dumps(text)
        if "\n" in written or any(letter in text for letter in ",[]{}#")
        else written
    )


def _clean(text: str) -> str:
    """A text fit for a comment: one line, printable."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _listed(names: Sequence[str], most: int = 30) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
