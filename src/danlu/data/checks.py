"""Checks of the data: leaks of the target, rows in two splits, classes of one row, row numbers.

Each finding is one sentence that names the column or rows, the value and the remedy; the caller
decides whether it is a notice or an error. The thresholds are chosen so that sound data raises no
finding: a single input that determines the target of all but one row in 500 is rare in practice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from danlu import registry
from danlu.data.fingerprints import first_equal_row, repeats_earlier_row, value_codes
from danlu.recipe import Data
from danlu.terms import RAGGED, Column, Table

MOST_LOOKED_AT = 20_000  # rows, evenly spaced, that the search for leaks reads
LEAST_COPIED = 20  # fewer rows than this can be equal in two columns by chance
LEAST_ROWS = 50  # of fewer rows than this one input can determine the target by chance
LEAST_MINORITY = 20  # rows outside the largest class, for the same reason
WRONG = 0.002  # share of those rows that an input may get wrong and still count as a leak
FEW = 20  # with at least so many rows per distinct value an input counts as a grouping of rows
CORRELATED = 0.9999  # correlation with a number target above which an input counts as a leak
MOST_FEATURES = 4096  # features of a wide number column that are searched for leaks
MOST_CLASSES = 20  # a number target with more distinct values is a quantity, not a class
# Bytes of a text column above which splits are not searched for repeated rows: the search needs
# memory for the whole column.
MUCH_TEXT = 256 << 20
_NAMED = 3  # rows that one sentence names


def check_table(table: Table, data: Data, *, spelt: bool = False) -> list[str]:
    """Findings about the table as a whole: a constant target, classes of one row, leaks, columns
    that count the rows.

    `spelt`: the targets are texts to be generated, not classes, so their repetitions mean nothing.
    """
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
    """Findings about the splits: rows repeated across them, categories that training never sees,
    groups divided between splits. `spelt` as in `check_table`."""
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
    """Which rows repeat an earlier row exactly, bool (N,); False for the first of equal rows.

    Rows are compared in the inputs and targets of `data` (columns that are not used do not make two
    rows different), or in every column where `data` is None.

    >>> table = Table({"x": Column("x", "number", np.array([1.0, 1.0]))}, "t.csv")
    >>> repeated_rows(table).tolist()
    [False, True]
    """
    names = list(table.columns) if data is None else _compared(table, data, data.targets)
    return repeats_earlier_row(table, names)


def _inputs(table: Table, data: Data) -> list[Column]:
    by = registry.split_column(data.split)
    dropped = (
        {name for name, options in data.columns.items() if not options.use}
        | set(data.targets)
        | {by}
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


# --- the target -----------------------------------------------------------------------------------


def _of_target(table: Table, target: Column) -> list[str]:
    labelled = np.flatnonzero(~target.is_missing())
    if not len(labelled):
        return [
            (
                f"The target {target.name} is missing in all {len(target):,} rows. Choose another "
                "data.target."
            )
        ]
    classes, counts = np.unique(value_codes(target)[labelled], return_counts=True)
    if len(classes) == 1:
        value = target.python_value(int(labelled[0]))
        return [
            (
                f"The target {target.name} is {value!r} in all {len(labelled):,} rows, so there is "
                "nothing to learn. Choose another data.target."
            )
        ]
    if not _is_class(target, len(classes)):
        return []
    single = classes[counts == 1]
    if not len(single):
        return []
    rows = labelled[np.isin(value_codes(target)[labelled], single)]
    values = ", ".join(repr(target.python_value(int(row))) for row in rows[:_NAMED])
    return [
        f"{len(rows):,} class(es) of the target {target.name} have a single row: {values} "
        f"({_rows(table, rows)}). "
        "A class of one row cannot be both trained and tested: add rows, or leave these out."
    ]


def _is_class(target: Column, distinct: int) -> bool:
    return target.kind in ("category", "boolean") or (
        target.kind == "number" and distinct <= MOST_CLASSES
    )


# --- leaks ----------------------------------------------------------------------------------------


def _leak(table: Table, column: Column, target: Column, alone: bool) -> list[str]:
    """At most one sentence: that `column` holds the target, or determines it."""
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
            (
                f"Whether column {column.name} is missing tells the target {target.name} of nearly "
                f"every row. {remedy}"
            )
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
                    (
                        f"Column {name} alone gives the target {target.name} (correlation "
                        f"{strength:.6f}). {remedy}"
                    )
                ]
    return []


def _features(column: Column) -> list[tuple[str, np.ndarray]]:
    """[(name, values)] of each feature of a column: float64 numbers, NaN where missing; or int64
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
    """Whether `values` (numbers or codes) determine the class, with at most one error in 500 of the
    rows outside the largest class.

    Each distinct value predicts the most frequent class among its rows. That counts only where
    there are few values (each has many rows), or where the class changes rarely along the sorted
    values; otherwise every distinct value would predict its own row."""
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
    if values.dtype.kind == "i":  # codes have no order
        return False
    chosen = classes[order][last]
    changes = int((chosen[1:] != chosen[:-1]).sum())
    return wrong + max(0, changes - (len(counts) - 1)) / 2 <= allowed


def _strength(values: np.ndarray, target: np.ndarray) -> float:
    """How well one feature determines a number target, 0..1: the larger of the correlation of the
    numbers and that of their ranks; for codes the square root of R squared."""
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
    """Ranks; equal values share the mean of theirs."""
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
        f"Column {column.name} counts the rows ({values[0]:.0f}, {values[1]:.0f}, {values[2]:.0f}, "
        "...): it is a row's position in the file and no property of it. "
        f"Set data.columns.{column.name}.use to false."
    ]


# --- the splits -----------------------------------------------------------------------------------


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
        f"{len(positions):,} of {len(rows):,} {split} rows repeat a training row exactly "
        f"({pairs}{more}), so the {split} score counts what was "
        "learnt by heart. Set data.duplicates to drop."
    ]


def _unseen(
    table: Table, column: Column, train: np.ndarray, rows: np.ndarray, split: str, is_target: bool
) -> list[str]:
    """Categories of a split that are not in the training split."""
    if column.kind != "category":
        return []
    seen = np.zeros(len(column.categories) + 1, dtype=bool)
    seen[column.values[train]] = True
    seen[-1] = True  # code -1 (missing) indexes this entry
    new = rows[~seen[column.values[rows]]]
    if not len(new):
        return []
    codes: list[int] = column.values[new[:1000]].tolist()
    values = list(dict.fromkeys(column.categories[code] for code in codes))
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
        (
            f"{what} {column.name} ({listed}{', ...' if count > _NAMED else ''}) stand in {split} "
            f"only: {_rows(table, new)}. {remedy}"
        )
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
    """Groups (equal values of an identifier) with rows both in train and in another split."""
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
        f"{len(both):,} value(s) of column {column.name} stand both in train and in {split}, as "
        f"{column.python_value(example)!r} "
        f"({table.where(other)}, {table.where(example)}). If rows of one {column.name} belong "
        "together, set data.split to "
        f"{{name: grouped, column: {column.name}}}."
    ]


def _names_groups(column: Column, data: Data) -> bool:
    """Whether a column looks like the key of a group of rows: it has a name such as user_id, and 2
    to 50 rows per value."""
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
