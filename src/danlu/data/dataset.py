"""A recipe's data, prepared: table, splits, fitted preprocessing and task, and all examples.

`prepare` is the way of the data from the files to the examples that a model is trained on."""

from __future__ import annotations

import copy
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from danlu import registry
from danlu.data import cache, checks, documents, folds
from danlu.data.examples import Examples, Field, Ragged, Target, take_examples
from danlu.data.fingerprints import value_codes
from danlu.data.preprocessing import Preprocessor
from danlu.errors import DataError, PartError, nearest
from danlu.parts.tasks._base import CutsExamples, EncodesTargets, ReadsPreprocessing, Task
from danlu.recipe import Data, Part, Recipe, as_plain
from danlu.system.placement import SPLIT, draw_seed
from danlu.terms import Column, Table
from danlu.tokenizing.from_artifact import input_tokenizer_state

SPLITS = ("train", "validation", "test")


@dataclass
class Dataset:
    """The data of a recipe as a model is trained on it.

    table          the rows, as the task reads them
    digest         "sha256:..." of the source's content
    preprocessor   fitted to the training rows
    task           the fitted task
    examples       inputs, target and splits by example; an example is a row of the table unless the
                   task makes examples of its own (windows)
    notices        sentences for the reader"""

    table: Table
    digest: str
    preprocessor: Preprocessor
    task: Task
    examples: Examples
    notices: list[str] = field(default_factory=list[str])

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """ "train", "validation" and "test" -> ids of examples, int64, ascending."""
        return self.examples.splits

    @property
    def arrays(self) -> dict[str, Field]:
        """Input name -> the Field of all examples."""
        return self.examples.inputs

    @property
    def target(self) -> Target:
        """The target of all examples: a Field, a dict of them, or None."""
        return self.examples.target

    def where(self, example: int) -> str:
        """What a message calls an example: the row of the table that it comes from."""
        return self.table.where(int(self.examples.row_of(np.array([example]))[0]))

    def baseline(self, split: str) -> dict[str, float]:
        """The scores by metric name, on a split, of the best constant answer to the training rows
        (the majority class, the mean); {} where the task has no such baseline."""
        if isinstance(self.task, CutsExamples):
            return self.task.baseline(self.examples, split)
        assert isinstance(self.task, EncodesTargets)
        task = cast("EncodesTargets[Any]", self.task)
        rows = self.splits["train"], self.splits[split]
        target = self.target
        if isinstance(target, Mapping):
            train_targets, split_targets = (
                {name: take_examples(field, ids) for name, field in target.items()} for ids in rows
            )
            return task.baseline(train_targets, split_targets)
        assert target is not None
        return task.baseline(*(take_examples(target, ids) for ids in rows))


# The data sets prepared last, the latest at the end; None outside `keep_in_memory`.
_memo: dict[str, Dataset] | None = None


@contextmanager
def keep_in_memory() -> Generator[None, None, None]:
    """Inside this context, prepared data sets stay in memory for the next training on the same rows
    (a search has many of them). Files that change meanwhile are not read again.
    """
    global _memo
    before, _memo = _memo, {} if _memo is None else _memo
    try:
        yield
    finally:
        _memo = before


def prepare(recipe: Recipe, fold: tuple[int, int] | None = None) -> Dataset:
    """The Dataset of a recipe. `fold` (i, k): the rows outside the test split are cut into k folds,
    and fold i (0-based) is the validation split.

    Raises DataError naming file, row and column where the data does not fit the recipe.
    """
    if _memo is None:
        return _prepared(recipe, fold)
    facts = registry.model_facts(recipe.model.name)
    adapts = facts.adapt is not None or facts.adapt_task is not None
    model = recipe.model.as_dict() if adapts else [list(facts.takes), list(facts.gives)]
    weights = registry.weights_of(recipe.model)
    key = json.dumps(
        [as_plain(recipe.data), recipe.task.as_dict(), model, weights, recipe.train.seed, fold],
        sort_keys=True,
    )
    if key not in _memo:
        _memo[key] = _prepared(recipe, fold)
        while len(_memo) > max(2, fold[1] if fold else 0):
            del _memo[next(iter(_memo))]
    dataset = _memo[key]
    # each training appends notices and changes its task, so each gets its own
    return replace(dataset, task=copy.deepcopy(dataset.task), notices=list(dataset.notices))


def _prepared(recipe: Recipe, fold: tuple[int, int] | None) -> Dataset:
    data = effective_data(recipe)
    table, digest = cache.load_table(data.source, data.columns, data.cache)
    _check_names(table, data, needs_inputs=not targets_are_inputs(recipe))
    table = task_table(recipe, table)
    alive, notices = _alive(table, data, targets_are_inputs(recipe))
    notices = [*table.notices, *notices]
    splits = split_rows(table, alive, recipe)
    if fold is not None:
        splits = _fold(table, splits, data, fold, recipe.train.seed)
    if data.checks != "off":
        # whether targets are texts, not classes
        spelt = registry.task_facts(recipe.task.name).asks in ("spelling", "tokens")
        findings = [
            *checks.check_table(table, data, spelt=spelt),
            *checks.check_splits(table, splits, data, data.targets, spelt=spelt),
        ]
        if findings and data.checks == "error":
            raise DataError(
                " ".join(findings),
                where=table.origin,
                hint="mend the data, or set data.checks to warn",
            )
        notices += findings
    train = splits["train"]
    task = registry.build_task(
        _task_meant(recipe), {name: table.columns[name].take(train) for name in data.targets}
    )
    takes = (
        registry.task_facts(recipe.task.name).reads or registry.model_facts(recipe.model.name).takes
    )
    apart = () if targets_are_inputs(recipe) else data.targets
    preprocessor = Preprocessor.fit(table, train, data, apart, takes, task.needs)
    notices += preprocessor.notices
    key = (
        json.dumps([digest, recipe.task.as_dict()]) if data.cache else None
    )  # the task may have recast the table
    examples = make_examples(
        task,
        preprocessor,
        table,
        {name: table.columns[name] for name in data.targets},
        splits,
        alive,
        key=key,
    )
    notices += examples.facts
    _check_fit(recipe, task, examples)
    return Dataset(table, digest, preprocessor, task, examples, notices)


def targets_are_inputs(recipe: Recipe) -> bool:
    """Whether the task's target columns are inputs as well (the past of a series)."""
    return registry.task_facts(recipe.task.name).targets_are_inputs


def effective_data(recipe: Recipe) -> Data:
    """The recipe's data section after the changes that its model and task make to it (a language
    model tokenizes texts whole, for instance)."""
    data = _with_tokenizer(recipe)
    adapt = registry.model_facts(recipe.model.name).adapt
    data = adapt(recipe.model.options, data) if adapt is not None else data
    adapt = registry.task_facts(recipe.task.name).adapt
    return data if adapt is None else adapt(recipe.task.options, data)


def _task_meant(recipe: Recipe) -> Part:
    """The recipe's task after the changes that its model makes to it."""
    adapt_task = registry.model_facts(recipe.model.name).adapt_task
    return recipe.task if adapt_task is None else adapt_task(recipe.model.options, recipe.task)


def _with_tokenizer(recipe: Recipe) -> Data:
    """The data section whose tokenize transforms use the tokenizer of the artifact that the model's
    weights come from; unchanged where there is none."""
    data, path = recipe.data, registry.weights_of(recipe.model)
    if (
        path is None
        or "tokens" not in registry.model_facts(recipe.model.name).takes
        or input_tokenizer_state(path) is None
    ):
        return data
    config = registry.config("transforms", "tokenize")
    borrowed = {"kind": "file", "tokenizer": path}

    def change(part: Part) -> Part:
        kept = {name: getattr(part.options, name) for name in ("max_length", "beginning", "end")}
        return Part(part.name, config.model_validate({**borrowed, **kept}))

    data = documents.change_tokenize(data, change)
    usual = {"text": [Part("tokenize", config.model_validate(borrowed))]}
    return data.model_copy(update={"transforms": {**usual, **data.transforms}})


def task_table(recipe: Recipe, table: Table) -> Table:
    """The table in the rows that the task thinks in."""
    recast = registry.task_facts(recipe.task.name).recast
    return table if recast is None else recast(recipe.task.options, table)


def make_examples(
    task: Task,
    preprocessor: Preprocessor,
    table: Table,
    targets: Mapping[str, Column],
    splits: dict[str, np.ndarray],
    alive: np.ndarray | None = None,
    *,
    answering: bool = False,
    key: str | None = None,
) -> Examples:
    """The Examples of a table; `splits` are rows of it, and `alive` those that take part at all
    (None: all).

    With `answering` there is no target, and the examples are those to be answered. `key` names the
    content of the table, so that what is costly to make of it is kept."""
    arrays = preprocessor.apply(table, key=key)
    if isinstance(task, ReadsPreprocessing):
        task.attach(preprocessor)
    if isinstance(task, CutsExamples):
        return task.make_examples(
            arrays, preprocessor.inputs, {} if answering else targets, splits, table, answering
        )
    target = None
    if targets and not answering:
        target = encode_target(task, targets, np.arange(len(table)) if alive is None else alive)
    return Examples(dict(arrays), preprocessor.inputs, target, splits)


def _check_fit(recipe: Recipe, task: Task, examples: Examples) -> None:
    """A model must take what the task cuts, and give what it asks."""
    facts = registry.model_facts(recipe.model.name)
    gives = facts.gives
    if task.output.per not in gives:
        fitting = [
            name
            for name in registry.names("models")
            if task.output.per in _gives(name) and _takes(name, examples)
        ]
        raise PartError(
            f"the task {recipe.task.name} asks for one output a {task.output.per}, and the model "
            f"{recipe.model.name} gives one a "
            f"{' or '.join(gives)}.",
            hint=f"models that fit: {', '.join(fitting)}" if fitting else "choose another model",
        )
    odd = sorted({spec.kind for spec in examples.input_specs.values()} - set(facts.takes))
    if odd:
        fitting = [
            name
            for name in registry.names("models")
            if _takes(name, examples) and task.output.per in _gives(name)
        ]
        raise PartError(
            f"the model {recipe.model.name} takes {', '.join(facts.takes)}, and the data gives "
            f"{', '.join(odd)}.",
            hint=f"models that fit: {', '.join(fitting)}"
            if fitting
            else "choose another model, or leave these columns out",
        )


def _gives(name: str) -> tuple[str, ...]:
    return registry.model_facts(name).gives


def _takes(name: str, examples: Examples) -> bool:
    return {spec.kind for spec in examples.input_specs.values()} <= set(
        registry.model_facts(name).takes
    )


def _check_names(table: Table, data: Data, needs_inputs: bool = True) -> None:
    for role, names in (("data.target", data.targets), ("data.columns", tuple(data.columns))):
        for name in names:
            if name not in table.columns:
                near = nearest(name, table.columns)
                raise DataError(
                    f"{role} names the column {name!r}, and {table.origin} has "
                    f"{', '.join(map(repr, table.columns))}.",
                    hint=f"did you mean {near[0]}?" if near else "name one of its columns",
                )
    if len(table) == 0:
        raise DataError("there is no row.", where=table.origin)
    inputs = [name for name in table.columns if name not in data.targets]
    if not inputs and needs_inputs:
        raise DataError(
            "every column is a target: nothing is left to learn from.", where=table.origin
        )


def used_rows(table: Table, recipe: Recipe) -> np.ndarray:
    """Rows (int64, ascending) that take part at all."""
    return _alive(table, recipe.data, targets_are_inputs(recipe))[0]


def _alive(table: Table, data: Data, series: bool) -> tuple[np.ndarray, list[str]]:
    """(the rows that take part, int64; sentences about those left out). In a `series` a missing
    target leaves the row in: it is a moment without a value."""
    keep = np.ones(len(table), dtype=bool)
    notices: list[str] = []
    for name in () if series else data.targets:
        lost = table.columns[name].is_missing()
        if lost.any():
            if data.missing_target == "error":
                rows = np.flatnonzero(lost)
                raise DataError(
                    f"the target {name} is missing in {len(rows):,} of {len(table):,} rows "
                    f"(first: {table.where(int(rows[0]))}).",
                    where=table.origin,
                    hint="set data.missing_target to drop, or mend the rows",
                )
            keep &= ~lost
            notices.append(
                f"{int(lost.sum()):,} rows without a value of the target {name} are left out."
            )
    if data.missing_rows == "drop":
        lost = np.zeros(len(table), dtype=bool)
        for name, column in table.columns.items():
            options = data.columns.get(name)
            if name not in data.targets and (options is None or options.use):
                lost |= column.is_missing()
        notices.append(
            f"{int((lost & keep).sum()):,} rows with a missing input value are left out."
        )
        keep &= ~lost
    if data.duplicates == "drop":
        repeated = checks.repeated_rows(table, data)
        notices.append(
            f"{int((repeated & keep).sum()):,} rows that repeat an earlier row exactly are left "
            "out."
        )
        keep &= ~repeated
    rows = np.flatnonzero(keep)
    if len(rows) == 0:
        raise DataError(
            "no row is left after leaving out what data.missing_rows, missing_target and "
            "duplicates say.",
            where=table.origin,
        )
    return rows, notices


def split_rows(table: Table, alive: np.ndarray, recipe: Recipe) -> dict[str, np.ndarray]:
    """Rows of each split: where the source assigns rows they stay, the rest is drawn by the
    recipe's split."""
    data = recipe.data
    assert data.split is not None
    part: Part = data.split
    assigned = table.split
    fixed = (
        {name: alive[assigned[alive] == code] for code, name in enumerate(SPLITS)}
        if assigned is not None
        else {}
    )
    drawn = alive if assigned is None else alive[assigned[alive] <= 0]
    for name in ("validation", "test"):
        if len(fixed.get(name, ())) and name in type(part.options).model_fields:
            part = Part(part.name, part.options.model_copy(update={name: 0.0}))
    small = {
        name: column
        for name, column in table.columns.items()
        if column.kind != "image" or name in data.targets
    }
    if not small:  # nothing to look at but how many rows there are
        small = {"": Column("", "number", np.zeros(len(table)))}
    view = Table(
        small, table.origin, table.row_names, table.row_numbers, table.files, table.file_numbers
    )
    if len(drawn) < len(table):
        view = view.take(drawn)
    target = view.columns[data.targets[0]] if data.targets else None
    seed = draw_seed(recipe.train.seed, SPLIT, 0)
    drawn_splits = registry.build_split(part, view, target, seed)
    splits = {name: drawn[drawn_splits.get(name, np.zeros(0, dtype=np.int64))] for name in SPLITS}
    for name in ("validation", "test"):
        if len(fixed.get(name, ())):
            splits[name] = np.sort(np.concatenate([splits[name], fixed[name]]))
    if len(splits["train"]) == 0:
        raise DataError(
            "the training split has no row.",
            where=table.origin,
            hint="lower the shares of validation and test",
        )
    return splits


def _fold(
    table: Table, splits: dict[str, np.ndarray], data: Data, fold: tuple[int, int], seed: int
) -> dict[str, np.ndarray]:
    index, count = fold
    rows = np.sort(np.concatenate([splits["train"], splits["validation"]]))
    split = data.split
    if split is not None and split.name in ("in_order", "by_time"):
        train, validation = folds.rolling_origin(rows, _moments(table, rows, split), count)[index]
        return {"train": train, "validation": validation, "test": splits["test"]}
    target = table.columns[data.targets[0]].take(rows) if data.targets else None
    groups = None
    if split is not None and split.name == "grouped":  # a group stays whole across folds as well
        groups = table.columns[split.options.column].take(rows)  # type: ignore[attr-defined]
    train, validation = folds.k_fold(rows, target, count, draw_seed(seed, SPLIT, 1), groups=groups)[
        index
    ]
    return {"train": train, "validation": validation, "test": splits["test"]}


def _moments(table: Table, rows: np.ndarray, split: Part) -> np.ndarray:
    """When each of `rows` was, by what the split goes by: a column of times, or the place in the
    table (in its series)."""
    if split.name == "by_time":
        return table.columns[split.options.column].values[rows]  # type: ignore[attr-defined]
    within = split.options.within  # type: ignore[attr-defined]
    if within is None:
        return rows
    series = np.unique(value_codes(table.columns[within].take(rows)), return_inverse=True)[1]
    order = np.argsort(series, kind="stable")
    counts = np.bincount(series)
    rank = np.empty(len(rows))
    rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return (rank + 0.5) / counts[series]  # the same share of each series


def encode_target(task: Task, targets: Mapping[str, Column], alive: np.ndarray) -> Target:
    """The encoded target of every row of the table; zeros (of a Ragged: nothing) in rows that are
    not in `alive` (int64)."""
    assert isinstance(task, EncodesTargets)
    encoder = cast("EncodesTargets[Any]", task)
    total = len(next(iter(targets.values())))
    if len(alive) == total:
        return encoder.encode(targets)
    encoded: np.ndarray | Ragged | Mapping[str, np.ndarray | Ragged] = encoder.encode(
        {name: column.take(alive) for name, column in targets.items()}
    )

    def spread(values: np.ndarray | Ragged) -> np.ndarray | Ragged:
        if isinstance(values, Ragged):
            sizes = np.zeros(total, dtype=np.int64)
            sizes[alive] = values.sizes
            return replace(values, offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        whole = np.zeros((total, *values.shape[1:]), dtype=values.dtype)
        whole[alive] = values
        return whole

    return (
        {name: spread(array) for name, array in encoded.items()}
        if isinstance(encoded, Mapping)
        else spread(encoded)
    )
