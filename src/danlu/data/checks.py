"""Checks that speak up: a target that leaks into an input, rows that stand in two splits, a class of one row, and their like.

Each finding is one sentence that names the column or rows, the value and the remedy; what a finding
does (a notice, an error) is for the caller to say. The thresholds are meant to be silent on honest
data: a single input that tells the target of all but one row in 500 is not found in nature often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from danlu import registry
from danlu.data.fingerprints import first_equal_row, repeats_earlier_row, value_codes
from danlu.recipe import Data
from danlu.terms import RAGGED, Column, Table

MOST_LOOKED_AT = 20_000  # rows that the search for leaks looks at, evenly spaced
LEAST_COPIED = 20  # rows below which that two columns are equal can be chance
LEAST_ROWS = 50  # below this, that one input tells the target can be chance
LEAST_MINORITY = 20  # rows outside the largest class, for the same reason
WRONG = 0.002  # share of those rows that an input may get wrong and still be called a leak
FEW = 20  # an input with at most one value for this many rows groups them; one with more can only order them
CORRELATED = 0.9999
MOST_FEATURES = 4096  # features of a wide number column that are searched for leaks
MOST_CLASSES = 20  # a number target of more values is a quantity, not a class
MUCH_TEXT = (
    256 << 20
)  # bytes of a text column above which splits are not searched for repeated rows, since it takes memory for all of it
_NAMED = 3  # rows that a sentence names


def check_table(table: Table, data: Data, *, spelt: bool = False) -> list[str]:
    """What is suspicious in the table as a whole: constant target, classes of one row, leaks, row
    numbers.

    `spelt`: targets are texts to be written, so that a short one is no class, though it stands in
    many rows or in one."""
    findings: list[str] = []
    inputs = _inputs(table, data)
    for name in data.targets:
        if name not in table.columns:
            continue
        target = table.columns[name]
        if target.kind == "image" or target.kind in RAGGED or target.values.ndim > 1 or spelt:
            continue
        findings += _of_target(table, target)
        for column in inputs:
            findings += _leak(table, column, target, alone=len(inputs) == 1)
    for column in inputs:
        findings += _row_number(column)
    return findings


def check_splits(
    table: Table,
    splits: Mapping[str, np.ndarray],
    data: Data,
    targets: Sequence[str],
    *,
    spelt: bool = False,
) -> list[str]:
    """What is suspicious in how rows were divided: repeated rows, categories never trained on,
    groups torn apart; `spelt` as above."""
    findings: list[str] = []
    train = splits["train"]
    inputs = _inputs(table, data)
    names = _compared(table, data, targets)
    for split in ("validation", "test"):
        rows = splits.get(split)
        if rows is None or not len(rows):
            continue
        if not any(
            table.columns[name].kind == "text" and table.columns[name].values.nbytes > MUCH_TEXT
            for name in names
        ):
            findings += _repeated(table, names, train, rows, split)
        for column in [
            *inputs,
            *(table.columns[name] for name in targets if name in table.columns and not spelt),
        ]:
            findings += _unseen(table, column, train, rows, split, column.name in targets)
        for column in table.columns.values():
            findings += _torn(table, column, data, train, rows, split, targets)
    return findings


def repeated_rows(table: Table, data: Data | None = None) -> np.ndarray:
    """Which rows repeat an earlier row exactly; bool (N,). Of equal rows the first is not among
    them.

    Rows are compared in the inputs and targets of `data` (a row's number does not make it another
    row), or in every column."""
    names = list(table.columns) if data is None else _compared(table, data, data.targets)
    return repeats_earlier_row(table, names)


def _inputs(table: Table, data: Data) -> list[Column]:
    by = registry.split_column(data.split)
    dropped = (
        {name for name, options in data.columns.items() if not options.use} | set(data.targets) | {by}
    )
    return [column for name, column in table.columns.items() if name not in dropped]


def _compared(table: Table, data: Data, targets: Sequence[str]) -> list[str]:
    """The columns in which two rows must agree to be the same row."""
    return [column.name for column in _inputs(table, data)] + [
        name for name in targets if name in table.columns
    ]


def _rows(table: Table, rows: np.ndarray) -> str:
    """'a.csv row 3, a.csv row 9 and 5 more'."""
    named = [table.where(int(row)) for row in rows[:_NAMED]]
    more = len(rows) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


# --- the target ---------------------------------------------------------------------------------------------------------


def _of_target(table: Table, target: Column) -> list[str]:
    labelled = np.flatnonzero(~target.is_missing())
    if not len(labelled):
        return [
            f"The target {target.name} is missing in all {len(target):,} rows. Choose another data.target."
        ]
    classes, counts = np.unique(value_codes(target)[labelled], return_counts=True)
    if len(classes) == 1:
        value = target.answer(int(labelled[0]))
        return [
            f"The target {target.name} is {value!r} in all {len(labelled):,} rows, so there is nothing to learn. Choose another data.target."
        ]
    if not _is_class(target, len(classes)):
        return []
    single = classes[counts == 1]
    if not len(single):
        return []
    rows = labelled[np.isin(value_codes(target)[labelled], single)]
    values = ", ".join(repr(target.answer(int(row))) for row in rows[:_NAMED])
    return [
        f"{len(rows):,} class(es) of the target {target.name} have a single row: {values} ({_rows(table, rows)}). "
        "What one row teaches cannot be tested: add rows, or leave these out."
    ]


def _is_class(target: Column, distinct: int) -> bool:
    return target.kind in ("category", "boolean") or (
        target.kind == "number" and distinct <= MOST_CLASSES
    )


# --- leaks --------------------------------------------------------------------------------------------------------------


def _leak(table: Table, column: Column, target: Column, alone: bool) -> list[str]:
    """At most one sentence: that `column` holds the target, or tells it."""
    if column.kind == "image" or (column.kind in RAGGED and column.kind != "text"):
        return []
    labelled = np.flatnonzero(~target.is_missing())
    if len(labelled) < LEAST_COPIED:
        return []
    if len(labelled) > MOST_LOOKED_AT:
        labelled = labelled[np.linspace(0, len(labelled) - 1, MOST_LOOKED_AT).astype(np.int64)]
    target = target.take(labelled)
    answers = value_codes(target)
    as_class = _is_class(target, len(np.unique(answers)))
    if len(np.unique(answers)) < 2:
        return []
    remedy = (
        f"If it is not known before {target.name} is, set data.columns.{column.name}.use to false."
    )
    looked = column.take(labelled)
    for name, values in _features(looked):
        if _equal(looked, values, target):
            return [f"Column {name} holds the same values as the target {target.name}. {remedy}"]
    if len(labelled) < LEAST_ROWS:
        return []
    lost = looked.is_missing()
    if as_class and lost.any() and not lost.all() and _tells(lost.astype(np.int64), answers):
        return [
            f"Whether column {column.name} is missing tells the target {target.name} of nearly every row. {remedy}"
        ]
    for name, values in _features(looked):
        if as_class and _tells(values, answers):
            return [
                f"Column {name} alone tells the target {target.name} of nearly every row. {remedy}"
            ]
        if not as_class and not alone:
            strength = _strength(values, target.values.astype(np.float64))
            if strength > CORRELATED:
                return [
                    f"Column {name} alone gives the target {target.name} (correlation {strength:.6f}). {remedy}"
                ]
    return []


def _features(column: Column) -> list[tuple[str, np.ndarray]]:
    """(name, values) of each thing a column says: float64 numbers, NaN where missing; or int64
    codes, -1 where missing."""
    if column.kind not in ("number", "datetime"):
        return [(column.name, value_codes(column))]
    if column.kind == "datetime":
        return [
            (column.name, np.where(column.is_missing(), np.nan, column.values.astype(np.float64)))
        ]
    if column.values.ndim == 1:
        return [(column.name, column.values.astype(np.float64))]
    named = len(column.names) == column.values.shape[1]
    return [
        (
            f"{column.name} ({column.names[feature]})" if named else f"{column.name} [{feature}]",
            column.values[:, feature].astype(np.float64),
        )
        for feature in range(min(column.values.shape[1], MOST_FEATURES))
    ]


def _equal(column: Column, values: np.ndarray, target: Column) -> bool:
    if column.kind != target.kind:
        return False
    if column.kind == "category":
        if not set(target.categories) & set(column.categories):
            return False
        code_of = {category: code for code, category in enumerate(target.categories)}
        lookup = np.array([*(code_of.get(category, -2) for category in column.categories), -1])
        return bool((lookup[column.values] == target.values).all())
    return bool((values == target.values).all())


def _tells(values: np.ndarray, answers: np.ndarray) -> bool:
    """Whether knowing `values` (numbers or codes) is knowing the class, but for one in 500 of the
    rows that are hard.

    A value's rows all get its most frequent class. That is only telling where values are few (each
    has many rows), or where classes change seldom along the order of the values; else every
    distinct value would tell its own row."""
    answers = np.unique(answers, return_inverse=True)[1]
    counts = np.bincount(answers)
    hard = len(answers) - int(counts.max())
    if hard < LEAST_MINORITY:
        return False
    allowed = WRONG * hard
    value_code = np.unique(values, return_inverse=True)[1]
    pairs, sizes = np.unique(value_code * len(counts) + answers, return_counts=True)
    groups, classes = np.divmod(pairs, len(counts))
    order = np.lexsort((sizes, groups))
    last = np.append(
        groups[order][1:] != groups[order][:-1], True
    )  # of each value the class with most rows
    wrong = len(answers) - int(sizes[order][last].sum())
    if wrong > allowed:
        return False
    if int(last.sum()) * FEW <= len(answers):
        return True
    if values.dtype.kind == "i":  # codes stand in no order
        return False
    chosen = classes[order][last]
    changes = int((chosen[1:] != chosen[:-1]).sum())
    return wrong + max(0, changes - (len(counts) - 1)) / 2 <= allowed


def _strength(values: np.ndarray, target: np.ndarray) -> float:
    """How much of a number target one feature gives: correlation of numbers or of their ranks; of
    codes, its root of R squared."""
    if values.dtype.kind == "i":
        value_code = np.unique(values, return_inverse=True)[1]
        counts = np.bincount(value_code)
        if len(counts) * FEW > len(values):
            return 0.0
        means = np.bincount(value_code, weights=target) / counts
        return _correlation(means[value_code], target)
    valid = ~np.isnan(values)
    if valid.sum() < LEAST_ROWS:
        return 0.0
    values, target = values[valid], target[valid]
    return max(_correlation(values, target), _correlation(_ranks(values), _ranks(target)))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    largest = max(np.abs(one).max(), 1e-300), max(np.abs(other).max(), 1e-300)
    if not np.isfinite(largest).all():
        return 0.0
    one, other = one / largest[0], other / largest[1]
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one @ one) * (other @ other))
    return float(abs(one @ other) / size) if size > 1e-12 * len(one) else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks; equal values share the middle of theirs."""
    _, value_code, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[value_code]


def _row_number(column: Column) -> list[str]:
    values = column.values
    if (
        column.kind != "number"
        or values.ndim > 1
        or len(values) < LEAST_ROWS
        or not (np.diff(values) == 1).all()
    ):
        return []
    return [
        f"Column {column.name} counts the rows ({values[0]:.0f}, {values[1]:.0f}, {values[2]:.0f}, ...): it tells a row's place in the file, "
        f"not what it is. Set data.columns.{column.name}.use to false."
    ]


# --- the splits ---------------------------------------------------------------------------------------------------------


def _repeated(
    table: Table, names: Sequence[str], train: np.ndarray, rows: np.ndarray, split: str
) -> list[str]:
    match = first_equal_row(table, names, rows, train)
    positions = np.flatnonzero(match >= 0)
    if not len(positions):
        return []
    pairs = ", ".join(
        f"{table.where(int(rows[position]))} = {table.where(int(match[position]))}"
        for position in positions[:_NAMED]
    )
    more = f" and {len(positions) - _NAMED:,} more" if len(positions) > _NAMED else ""
    return [
        f"{len(positions):,} of {len(rows):,} {split} rows repeat a training row exactly ({pairs}{more}), so the {split} score counts what was "
        "learnt by heart. Set data.duplicates to drop."
    ]


def _unseen(
    table: Table, column: Column, train: np.ndarray, rows: np.ndarray, split: str, is_target: bool
) -> list[str]:
    """Categories of a split that training never saw."""
    if column.kind != "category":
        return []
    seen = np.zeros(len(column.categories) + 1, dtype=bool)
    seen[column.values[train]] = True
    seen[-1] = True  # where code -1, missing, looks
    new = rows[~seen[column.values[rows]]]
    if not len(new):
        return []
    values = list(dict.fromkeys(column.categories[code] for code in column.values[new[:1000]]))
    listed = ", ".join(repr(value) for value in values[:_NAMED])
    count = len(np.unique(column.values[new]))
    what = (
        f"{count:,} class(es) of the target"
        if is_target
        else f"{count:,} categor{'y' if count == 1 else 'ies'} of column"
    )
    remedy = (
        "Choose the split stratified, or add rows."
        if is_target
        else "They will count as unknown (or rare)."
    )
    return [
        f"{what} {column.name} ({listed}{', ...' if count > _NAMED else ''}) stand in {split} only: {_rows(table, new)}. {remedy}"
    ]


def _torn(
    table: Table,
    column: Column,
    data: Data,
    train: np.ndarray,
    rows: np.ndarray,
    split: str,
    targets: Sequence[str],
) -> list[str]:
    """Groups (equal values of an identifier) with rows both in training and in another split."""
    if column.kind in ("image", "datetime") or column.values.ndim > 1 or column.name in targets:
        return []
    if column.kind in RAGGED and column.kind != "text":
        return []
    grouped = (
        data.split is not None
        and data.split.name == "grouped"
        and registry.split_column(data.split) == column.name
    )
    if not grouped and not _names_groups(column, data):
        return []
    groups = value_codes(column)
    both = np.intersect1d(groups[train], groups[rows])
    both = both[both >= 0]
    if not len(both):
        return []
    example = int(rows[np.isin(groups[rows], both)][0])
    other = int(train[groups[train] == groups[example]][0])
    return [
        f"{len(both):,} value(s) of column {column.name} stand both in train and in {split}, as {column.answer(example)!r} "
        f"({table.where(other)}, {table.where(example)}). If rows of one {column.name} belong together, set data.split to "
        f"{{name: grouped, column: {column.name}}}."
    ]


def _names_groups(column: Column, data: Data) -> bool:
    """Whether a column looks like the key of something that has several rows: a name such as
    user_id, and 2 to 50 rows a value."""
    name = column.name.strip()
    lowered = name.lower()
    called = (
        lowered == "id"
        or lowered.endswith(("_id", " id", "-id"))
        or (name.endswith(("Id", "ID")) and len(name) > 2)
    )
    options = data.columns.get(column.name)
    if not called and (options is None or options.use):
        return False
    if (
        column.kind == "number"
        and not (np.mod(column.values[~np.isnan(column.values)], 1) == 0).all()
    ):
        return False
    groups = value_codes(column)
    distinct = len(np.unique(groups[groups >= 0]))
    valid = int((groups >= 0).sum())
    return valid >= LEAST_ROWS and distinct * 2 <= valid <= distinct * 50
