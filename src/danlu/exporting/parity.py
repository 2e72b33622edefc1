"""An export held against the artifact it came from: the same raw rows through both, from the files on disk, as a user would run them.

    differences     of finished answers (probabilities; numbers in deviations of the training rows), the largest of all rows and outputs
    answers         the words of both must be the same, but where two classes are as likely to within what is allowed
    score           where a lower precision is asked for, the drop of the deciding score instead

Examples that are no rows (windows of a series, of a text) are held-out windows as evaluation cuts
them, prepared once and given to both."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from danlu import registry
from danlu.artifact.own_data import source_like_training
from danlu.artifact.prediction import Artifact
from danlu.data import cache
from danlu.data.batches import Rows, rows_at_once
from danlu.data.dataset import used_rows, make_examples, effective_data, task_table, split_rows
from danlu.data.examples import Ragged, take_examples
from danlu.errors import ArtifactError, ExportError
from danlu.exporting.loader import Export, pad
from danlu.recipe import Train
from danlu.system.placement import EVALUATION, draw_seed, place
from danlu.terms import FIRST_TOKEN, Batch, Table

LEAST_ROWS = 256
_MOST_SCORED = 2_000
TOLERANCE = (
    1e-4  # of float32: sums of thousands of products in another order end 1e-6 to 1e-5 apart
)
_PIECE = 64  # examples of one comparison

Arrays = dict[str, np.ndarray]


@dataclass
class Held:
    """Held-out rows: a table of `count` rows, or, where examples are no rows, examples `ids` of
    `fields`; `said` tells where they are from."""

    table: Table
    ids: np.ndarray
    said: str
    fields: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Proof:
    """What was compared: examples, the largest difference and where it stands, and what was
    allowed."""

    rows: int
    said: str
    allowed: float
    difference: float = 0.0
    where: str = ""
    by_output: dict[str, float] = field(default_factory=dict)
    answers: int = 0  # compared word by word
    accuracy: tuple[float, float] | None = (
        None  # before and after, where a lower precision may cost some
    )

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "rows": self.rows, "of": self.said, "allowed": self.allowed, "largest_difference": self.difference, "where": self.where,
            "by_output": self.by_output, "answers": self.answers, "accuracy": None if self.accuracy is None else list(self.accuracy),
        }  # fmt: skip


def takes_rows(task: Any) -> bool:
    """Whether an example of a task is a row of the table."""
    return not hasattr(task, "frame") or getattr(task, "frames_rows", False)


# --- rows that were held out --------------------------------------------------------------------------------------------


def held_out(artifact: Artifact, data: str | None = None, least: int = LEAST_ROWS) -> Held:
    """`least` held-out rows (or examples), evenly spaced: of the recipe's own test split, read
    anew, and of validation where it has fewer.

    `data` names a file to take them from instead. DataError where the recipe's data cannot be read
    any more."""
    recipe = artifact.recipe
    if hasattr(artifact.task, "tried"):
        tried = artifact.task.tried(artifact.module, least)
        return Held(Table({}, "noise"), np.arange(least), "noise of numbers from 0", dict(tried))
    if data is not None:
        table = artifact.table(data) if takes_rows(artifact.task) else _with_targets(artifact, data)
        splits, said = {"data": np.arange(len(table))}, data
    else:
        known = effective_data(recipe)
        table, digest = cache.load_table(known.source, known.columns, recipe.data.cache)
        table = task_table(recipe, table)
        splits = split_rows(table, used_rows(table, recipe), recipe)
        changed = digest != artifact.provenance.get("data", {}).get("digest", digest)
        said = f"{table.origin}{', which has changed since training' if changed else ''}"
    if takes_rows(artifact.task):
        ids, names = _chosen(splits, least)
        return Held(table.take(ids), ids, f"{names} of {said}")
    targets = {name: table.columns[name] for name in recipe.data.targets if name in table.columns}
    examples = make_examples(
        artifact.task, artifact.preprocessor, table, targets, splits, np.arange(len(table))
    )
    ids, names = _chosen(examples.splits, least)
    return Held(table, ids, f"{names} of {said}", dict(examples.inputs))


def _with_targets(artifact: Artifact, data: str) -> Table:
    """A data file with all its columns, the targets among them, in the rows that the task thinks
    in."""
    recipe = artifact.recipe
    table, _ = cache.load_table(
        source_like_training(data, artifact), effective_data(recipe).columns, recipe.data.cache
    )
    return task_table(recipe, table)


def _chosen(splits: Mapping[str, np.ndarray], least: int) -> tuple[np.ndarray, str]:
    """(at most `least` ids, where they are from)."""
    order = [name for name in ("data", "test", "validation") if len(splits.get(name, ()))]
    if not order:
        return splits["train"][:least], "training rows (there is no other split)"
    taken = order[:1]
    if len(splits[order[0]]) < least and len(order) > 1:
        taken = order
    found = np.concatenate([splits[name] for name in taken])
    if len(found) > least:
        found = found[np.linspace(0, len(found) - 1, least).astype(np.int64)]
    names = {"data": "all rows", "test": "the test split", "validation": "validation"}
    return np.sort(found), " and ".join(names[name] for name in taken)


def raw_of(table: Table, names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns as the plain values that a user would give: numbers, strings, None where missing;
    pixels and samples as arrays."""
    found: dict[str, list[Any]] = {}
    for name in names:
        column = table.columns[name]
        if column.kind == "image":
            found[name] = list(column.values)
        elif column.kind in ("audio", "frames"):
            assert column.offsets is not None
            found[name] = [
                column.values[begin:end]
                for begin, end in zip(column.offsets[:-1], column.offsets[1:])
            ]
        else:
            found[name] = [column.answer(row) for row in range(len(column))]
    return found


def rows_of(raw: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """The same as a list of rows."""
    return [dict(zip(raw, values, strict=True)) for values in zip(*raw.values(), strict=True)]


def training_rows(artifact: Artifact, count: int) -> dict[str, torch.Tensor]:
    """`count` prepared training examples by input name, evenly spaced, for calibration."""
    recipe = artifact.recipe
    known = effective_data(recipe)
    table, _ = cache.load_table(known.source, known.columns, recipe.data.cache)
    table = task_table(recipe, table)
    rows = split_rows(table, used_rows(table, recipe), recipe)["train"]
    ids = rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(np.int64))]
    return examples_of(
        artifact, Held(table.take(ids), np.arange(len(ids)), "training rows"), len(ids)
    )


def examples_of(artifact: Artifact, held: Held, count: int = 3) -> dict[str, torch.Tensor]:
    """A few prepared examples by input name, as a batch holds them; images as bytes."""
    fields = held.fields
    if fields is None:
        first = held.table.take(np.arange(min(max(count, 2), len(held))))
        made = make_examples(
            artifact.task,
            artifact.preprocessor,
            first,
            {},
            {"data": np.arange(len(first))},
            answering=True,
        )
        fields, ids = made.inputs, np.arange(len(first))
    else:
        ids = held.ids[:count]
    batch = Rows(fields, {}, None, place(Train(device="cpu"))).gather(
        torch.from_numpy(np.ascontiguousarray(ids))
    )
    return {name: each.clone() for name, each in _shown(artifact, batch).inputs.items()}


def _shown(artifact: Artifact, batch: Batch) -> Batch:
    """The batch as the task shows it to a model."""
    task = artifact.task
    return task.corrupt(batch, draw_seed(0, EVALUATION, 0)) if hasattr(task, "corrupt") else batch


# --- both, side by side -------------------------------------------------------------------------------------------------


def prove(artifact: Artifact, export: Export, held: Held, allowed: float = TOLERANCE) -> Proof:
    """The Proof that an export answers as its artifact does. ExportError naming row, output and
    both values where it does not."""
    proof = Proof(len(held), held.said, allowed)
    scales = getattr(artifact.task, "scales", dict)()
    pairs = (
        _rows(artifact, export, held) if held.fields is None else _examples(artifact, export, held)
    )
    for wanted, found, ids in pairs:
        _compare(proof, wanted, found, ids, scales, export, held)
    if proof.difference > allowed or not np.isfinite(proof.difference):
        raise ExportError(
            f"the export does not answer as the artifact: {proof.where}. Allowed are {allowed:g}{_stage(artifact, export, held)}.",
            where=export.about["exporter"]["name"],
            hint="nothing was kept; please report this recipe",
        )
    if held.fields is None:
        proof.answers = _same_answers(artifact, export, held, allowed)
    return proof


def _stage(artifact: Artifact, export: Export, held: Held) -> str:
    """In words where the two part first: an input of the network, or the network itself; "" where
    nobody can tell."""
    exporter = registry.take("exporters", export.about["exporter"]["name"])
    if held.fields is not None or not export.entering or not hasattr(exporter, "stages"):
        return ""
    rows = rows_of(raw_of(held.table, list(artifact.preprocessor.reads)))
    table = artifact.table(rows)
    wanted = artifact.preprocessor.apply(table)
    staged = replace(export, run=exporter.stages(export.path, export.about["runs"]))
    found = _together(outputs for outputs, _, _ in staged.outputs(staged.table(rows)))
    for name, other in found.items():
        one = np.asarray(wanted[name], dtype=np.float64)
        apart = np.abs(one - other) > TOLERANCE * np.maximum(1.0, np.abs(one))
        if apart.any():
            row, place = (int(each) for each in np.argwhere(apart)[0])
            called = artifact.preprocessor.inputs[name].names[place]
            said = f"{other[row, place]:.6g} in place of {one[row, place]:.6g}"
            return f"; they part before the network, in its input {name}, {called}: {said} ({held.table.where(row)})"
    return "; the inputs of the network agree, so they part in the network" if found else ""


def _rows(
    artifact: Artifact, export: Export, held: Held
) -> Iterator[tuple[Arrays, Arrays, np.ndarray]]:
    """(wanted, found, rows of the table) of raw rows, each side reading them by itself."""
    raw = raw_of(held.table, list(artifact.preprocessor.reads))
    for start in range(0, len(held), _PIECE):
        piece = {name: values[start : start + _PIECE] for name, values in raw.items()}
        rows = rows_of(piece)
        wanted = _together(artifact.finished(artifact.table(rows)))
        found = _together(outputs for outputs, _, _ in export.outputs(export.table(rows)))
        yield wanted, found, np.arange(start, start + len(rows))


def _together(pieces: Any) -> Arrays:
    """Arrays of pieces one after the other; where places differ, the shorter are padded with
    NaN."""
    held: dict[str, list[np.ndarray]] = {}
    for piece in pieces:
        for name, each in piece.items():
            held.setdefault(name, []).append(
                each.numpy() if isinstance(each, torch.Tensor) else each
            )
    return {name: np.concatenate(_alike(parts)) for name, parts in held.items()}


def _alike(parts: list[np.ndarray]) -> list[np.ndarray]:
    shape = np.max([each.shape[1:] for each in parts], axis=0) if parts[0].ndim > 1 else ()
    if all(tuple(each.shape[1:]) == tuple(shape) for each in parts):
        return parts
    return [
        np.pad(each.astype(np.float64), [(0, 0), *((0, int(most - size)) for most, size in zip(shape, each.shape[1:]))], constant_values=np.nan)
        for each in parts
    ]  # fmt: skip


def _examples(
    artifact: Artifact, export: Export, held: Held
) -> Iterator[tuple[Arrays, Arrays, np.ndarray]]:
    """(wanted, found, examples) of prepared examples."""
    assert held.fields is not None
    placement = place(Train(device="cpu"))
    rows = Rows(held.fields, artifact.preprocessor.pixels, None, placement)
    module, views = artifact.module.to(placement.device).eval(), artifact.views()
    step = min(_PIECE, rows_at_once(rows, artifact.task.output))
    for start in range(0, len(held), step):
        ids = held.ids[start : start + step]
        batch = _shown(artifact, rows.gather(torch.from_numpy(np.ascontiguousarray(ids))))
        with torch.inference_mode():
            runs = getattr(artifact.task, "runs", None)
            outputs = (
                views(module, batch.inputs) if runs is None else runs(module, batch.inputs)
            ).float()
            finished = artifact.task.finish(module, batch.inputs, outputs)
        given = {
            name: _given(held.fields, name, batch, ids, export) for name in export.about["feeds"]
        }
        yield _together([finished]), export.run(given), ids


def _given(
    fields: Mapping[str, Any], name: str, batch: Batch, ids: np.ndarray, export: Export
) -> np.ndarray:
    """One input of a batch as the export takes it."""
    whole = fields.get(name)
    if isinstance(whole, np.ndarray) and whole.dtype == np.uint8:
        return take_examples(whole, ids)
    fixed = export.about["runs"].get("longest", {}).get(name)
    if fixed is not None and isinstance(whole, Ragged):
        return pad(take_examples(whole, ids), fixed, name)
    return np.ascontiguousarray(batch.inputs[name].numpy())


def _compare(
    proof: Proof,
    wanted: Arrays,
    found: Arrays,
    ids: np.ndarray,
    scales: Mapping[str, Any],
    export: Export,
    held: Held,
) -> None:
    """Take down the largest difference of every output."""
    if set(wanted) != set(found):
        raise ExportError(
            f"the export gives {', '.join(found) or 'nothing'}, and the artifact {', '.join(wanted)}."
        )
    for name, one in wanted.items():
        other = found[name]
        if one.ndim != other.ndim or len(one) != len(other):
            raise ExportError(
                f"the export gives {name} of shape {list(other.shape)}, and the artifact of {list(one.shape)}."
            )
        one, other = (_without(each, export, name) for each in (one, other))
        common = tuple(
            slice(0, min(a, b)) for a, b in zip(one.shape, other.shape)
        )  # padding may be longer on one side
        one, other = one[common].astype(np.float64), other[common].astype(np.float64)
        both = np.isnan(one) & np.isnan(other)
        with np.errstate(invalid="ignore"):  # an infinity equals itself
            apart = np.where(both | (one == other), 0.0, np.abs(one - other)) / np.asarray(
                scales.get(name, 1.0)
            )
        apart = np.where(np.isnan(apart), np.inf, apart)
        if not apart.size:
            continue
        place = np.unravel_index(int(apart.argmax()), apart.shape)
        worst = float(apart[place])
        proof.by_output[name] = max(proof.by_output.get(name, 0.0), worst)
        if worst > proof.difference or not proof.where:
            proof.difference = worst
            row = int(ids[place[0]])
            entry = f"[{', '.join(str(int(each)) for each in place[1:])}]" if len(place) > 1 else ""
            called = held.table.where(row) if row < len(held.table) else f"example {row:,}"
            proof.where = f"{called}, output {name}{entry}: {other[place]:.9g} in place of {one[place]:.9g}, {worst:.3g} apart"


def _without(array: np.ndarray, export: Export, name: str) -> np.ndarray:
    """An output without the entries that the files have no place for (marks of danlu's own, of
    which there are few)."""
    left_out = export.about["runs"].get("left_out", {}).get(name, [])
    if not left_out:
        return array
    if len(left_out) > FIRST_TOKEN or not all(
        type(each) is int and 0 <= each < FIRST_TOKEN for each in left_out
    ):
        raise ExportError(
            f"the export leaves out entries of {name} that are no marks of danlu's own."
        )
    return np.delete(array, left_out, axis=-1)


# --- a lower precision --------------------------------------------------------------------------------------------------


def prove_score(artifact: Artifact, export: Export, data: str | None, most_lost: float) -> Proof:
    """The Proof of an export in lower precision: accuracy on all held-out rows (at most 2,000) may
    fall by `most_lost` and no more.

    ExportError where it falls further, ArtifactError where rows are not of one class each.
    """
    if not hasattr(artifact.task, "class_counts") or hasattr(artifact.task, "frame"):
        raise ArtifactError(
            "a lower precision is proven by accuracy, and this model does not tell rows of classes apart."
        )
    held = held_out(artifact, data, _MOST_SCORED)
    known = [name for name in artifact.task.target_names if name in held.table.columns]
    if not known:
        raise ArtifactError(
            "the rows of the proof hold no target to score answers by.",
            where=held.said,
            hint="name a file that has it",
        )
    truth = artifact.task.encode({name: held.table.columns[name] for name in known})
    proof = Proof(len(held), held.said, most_lost)
    right = np.zeros(2)
    for wanted, found, ids in _rows(artifact, export, held):
        _compare(proof, wanted, found, ids, {}, export, held)
        for side, arrays in enumerate((wanted, found)):
            right[side] += (arrays["probabilities"].argmax(axis=1) == truth[ids]).sum()
    before, after = (float(each) / max(len(held), 1) for each in right)
    proof.accuracy = (before, after)
    if not before - after <= most_lost:
        raise ExportError(
            f"accuracy falls from {before:.4f} to {after:.4f} on {len(held):,} rows ({held.said}); at most {most_lost:g} may be lost.",
            where=export.about["exporter"]["name"],
            hint="nothing was kept; allow more, calibrate on more rows, or keep float32",
        )
    return proof


# --- words --------------------------------------------------------------------------------------------------------------


def _same_answers(artifact: Artifact, export: Export, held: Held, allowed: float) -> int:
    """How many answers were compared; ExportError for the first that says something else."""
    rows = rows_of(raw_of(held.table, list(artifact.preprocessor.reads)))
    wanted, found = artifact.predict(rows), export.predict(rows)
    if len(wanted) != len(found):
        raise ExportError(
            f"the export gives {len(found):,} answers, and the artifact {len(wanted):,}."
        )
    for row, (one, other) in enumerate(zip(wanted, found)):
        apart = differing(one, other, allowed)
        if apart and not _as_likely(one, other, allowed):
            raise ExportError(
                f"the export does not answer as the artifact: {held.table.where(row)}, {apart}.",
                hint="nothing was kept; please report this recipe",
            )
    return len(wanted)


def differing(one: Any, other: Any, allowed: float, at: str = "the answer") -> str:
    """In words where two answers differ; "" where they say the same."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"{at} names {', '.join(map(str, other))} in place of {', '.join(map(str, one))}"
        return next(
            (said for key in one if (said := differing(one[key], other[key], allowed, f"{key}"))),
            "",
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{at} has {len(other)} entries in place of {len(one)}"
        return next(
            (said for a, b in zip(one, other) if (said := differing(a, b, allowed, at))), ""
        )
    if isinstance(one, float) and isinstance(other, float):
        close = one == other or abs(one - other) <= allowed * max(1.0, abs(one), abs(other)) * 10
        return "" if close else f"{at} is {other:.9g} in place of {one:.9g}"
    return (
        ""
        if type(one) is type(other) and one == other
        else f"{at} is {_said(other)} in place of {_said(one)}"
    )


def _as_likely(one: Mapping[str, Any], other: Mapping[str, Any], allowed: float) -> bool:
    """Whether two answers differ only in which of two equally likely classes they name."""
    sure = one.get("probabilities")
    if not isinstance(sure, Mapping) or differing(sure, other.get("probabilities"), allowed):
        return False
    pairs = (
        [(sure, one["prediction"], other["prediction"])]
        if not isinstance(one["prediction"], Mapping)
        else [
            (sure.get(name), one["prediction"][name], other["prediction"].get(name))
            for name in one["prediction"]
        ]
    )
    for likely, mine, theirs in pairs:
        if mine == theirs:
            continue
        if not isinstance(likely, Mapping):
            return False
        try:
            near = (
                [abs(likely[mine] - likely[theirs])]
                if mine in likely
                else [abs(p - 0.5) for p in likely.values()]
            )
        except (KeyError, TypeError):
            return False
        if min(near) > 2 * allowed:
            return False
    return True


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:80]


__all__ = [
    "LEAST_ROWS",
    "TOLERANCE",
    "ArtifactError",
    "Held",
    "Proof",
    "examples_of",
    "held_out",
    "prove",
    "raw_of",
    "rows_of",
]
