"""The parity check: an export and its artifact answer the same held-out rows.

Each side is read from its files on disk and run on raw rows, as a user would.

    differences   of finished answers (probabilities; numbers in standard deviations of the training
                  rows): the largest of all rows and outputs is limited
    answers       the words of both must be the same, except where two classes are equally likely to
                  within the tolerance
    accuracy      for a lower precision, how far accuracy falls is limited instead

Where an example is no row (a window of a series or of a text), both get the same prepared examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from danlu.artifact.prediction import Artifact
from danlu.data.batches import Rows, rows_at_once
from danlu.data.examples import Field, Ragged, take_examples
from danlu.errors import ArtifactError, ExportError
from danlu.exporting.answer_difference import differ_by_a_tie, first_difference
from danlu.exporting.exporters._base import exporter
from danlu.exporting.held_out import (
    HeldOutRows,
    as_rows,
    as_the_model_sees,
    raw_values,
    select_held_out,
)
from danlu.exporting.loader import Export, pad_rows
from danlu.parts.tasks._base import (
    ClassifiesRows,
    EncodesTargets,
    Exportable,
    ExportsGenerator,
    ScalesDifferences,
)
from danlu.recipe import Train
from danlu.system.placement import placement_for
from danlu.terms import FIRST_TOKEN, Batch, Json

# For float32: sums of thousands of products in another order differ by 1e-6 to 1e-5.
TOLERANCE = 1e-4
_ACCURACY_ROWS = 2_000
_PIECE = 64  # examples of one comparison

Arrays = dict[str, np.ndarray]


@dataclass
class ParityReport:
    """What a parity check compared and found.

    rows         how many rows or examples were compared
    origin       where they are from, in words
    allowed      the largest difference allowed, or the largest drop of accuracy
    difference   the largest difference of all outputs
    where        in words, where the largest difference is
    by_output    the largest difference of each output
    answers      how many answers were compared word by word
    accuracy     (of the artifact, of the export), 0 to 1; None where accuracy was not compared
    """

    rows: int
    origin: str
    allowed: float
    difference: float = 0.0
    where: str = ""
    by_output: dict[str, float] = field(default_factory=dict)
    answers: int = 0
    accuracy: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Json]:
        """The report as JSON values, as export.json stores it.

        >>> ParityReport(3, "the test split of iris.csv", 1e-4).as_dict()["of"]
        'the test split of iris.csv'
        """
        return {
            "rows": self.rows,
            "of": self.origin,
            "allowed": self.allowed,
            "largest_difference": self.difference,
            "where": self.where,
            "by_output": self.by_output,
            "answers": self.answers,
            "accuracy": None if self.accuracy is None else list(self.accuracy),
        }


def check_parity(
    artifact: Artifact, export: Export, rows: HeldOutRows, allowed: float = TOLERANCE
) -> ParityReport:
    """Compare the finished answers of an export with those of its artifact.

    Raises ExportError, which names row, output and both values, where they differ by more than
    `allowed`.
    """
    report = ParityReport(len(rows), rows.origin, allowed)
    task = artifact.task
    scales = task.difference_scales() if isinstance(task, ScalesDifferences) else {}
    pairs = _run_rows if rows.fields is None else _run_examples
    for expected, actual, ids in pairs(artifact, export, rows):
        _compare(report, expected, actual, ids, scales, export, rows)
    if report.difference > allowed or not np.isfinite(report.difference):
        cause = _where_they_part(artifact, export, rows)
        raise ExportError(
            f"the export does not answer as the artifact does: {report.where}. "
            f"The largest difference allowed is {allowed:g}{cause}.",
            where=export.exporter_name,
            hint="nothing was kept; please report this recipe",
        )
    if rows.fields is None:
        report.answers = _compare_answers(artifact, export, rows, allowed)
    return report


def _where_they_part(artifact: Artifact, export: Export, rows: HeldOutRows) -> str:
    """In words, whether the inputs of the network differ already, or only its outputs; "" where the
    exporter cannot tell."""
    preprocessing_run = exporter(export.exporter_name).preprocessing_run
    if rows.fields is not None or not export.raw_columns or preprocessing_run is None:
        return ""
    raw = as_rows(raw_values(rows.table, list(artifact.preprocessor.row_schema)))
    expected = artifact.preprocessor.apply(artifact.table(raw))
    staged = replace(export, run=preprocessing_run(export.path, export.manifest["runs"]))
    actual = _concatenated(outputs for outputs, _, _ in staged.outputs(staged.table(raw)))
    for name, other in actual.items():
        one = np.asarray(expected[name], dtype=np.float64)
        differs = np.abs(one - other) > TOLERANCE * np.maximum(1.0, np.abs(one))
        if differs.any():
            row, column = (int(index) for index in np.argwhere(differs)[0])
            feature = artifact.preprocessor.inputs[name].names[column]
            values = f"{other[row, column]:.6g} in place of {one[row, column]:.6g}"
            return (
                f"; they differ before the network, in its input {name}, {feature}: {values} "
                f"({rows.table.where(row)})"
            )
    return "; the inputs of the network agree, so the network itself differs" if actual else ""


def _run_rows(
    artifact: Artifact, export: Export, rows: HeldOutRows
) -> Iterator[tuple[Arrays, Arrays, np.ndarray]]:
    """(the artifact's arrays, the export's, rows of the table) piece by piece; each side reads the
    raw rows itself."""
    columns = raw_values(rows.table, list(artifact.preprocessor.row_schema))
    for start in range(0, len(rows), _PIECE):
        raw = as_rows({name: values[start : start + _PIECE] for name, values in columns.items()})
        expected = _concatenated(artifact.finished(artifact.table(raw)))
        actual = _concatenated(outputs for outputs, _, _ in export.outputs(export.table(raw)))
        yield expected, actual, np.arange(start, start + len(raw))


def _run_examples(
    artifact: Artifact, export: Export, rows: HeldOutRows
) -> Iterator[tuple[Arrays, Arrays, np.ndarray]]:
    """(the artifact's arrays, the export's, examples) piece by piece, of prepared examples."""
    assert rows.fields is not None
    placement = placement_for(Train(device="cpu"))
    gather = Rows(rows.fields, artifact.preprocessor.pixels, None, placement)
    task, views = artifact.task, artifact.views()
    assert isinstance(task, Exportable)
    module = artifact.module.to(placement.device).eval()
    step = min(_PIECE, rows_at_once(gather, artifact.task.output))
    for start in range(0, len(rows), step):
        ids = rows.ids[start : start + step]
        batch = gather.gather(torch.from_numpy(np.ascontiguousarray(ids)))
        batch = as_the_model_sees(artifact, batch)
        with torch.inference_mode():
            outputs = (
                task.generate(module, batch.inputs)
                if isinstance(task, ExportsGenerator)
                else views(module, batch.inputs)
            ).float()
            finished = task.finish(module, batch.inputs, outputs)
        inputs = {
            name: _export_input(rows.fields, name, batch, ids, export)
            for name in export.manifest["feeds"]
        }
        yield _concatenated([finished]), export.run(inputs), ids


def _export_input(
    fields: Mapping[str, Field], name: str, batch: Batch, ids: np.ndarray, export: Export
) -> np.ndarray:
    """One input of a batch as the export takes it."""
    whole = fields.get(name)
    if isinstance(whole, np.ndarray) and whole.dtype == np.uint8:
        return take_examples(whole, ids)
    fixed = export.manifest["runs"].get("longest", {}).get(name)
    if fixed is not None and isinstance(whole, Ragged):
        return pad_rows(take_examples(whole, ids), fixed, name)
    return np.ascontiguousarray(batch.inputs[name].numpy())


def _concatenated(pieces: Iterable[Mapping[str, np.ndarray | Tensor]]) -> Arrays:
    """The arrays of pieces one after the other; where their other axes differ in length, shorter
    ones are padded with NaN."""
    by_name: dict[str, list[np.ndarray]] = {}
    for piece in pieces:
        for name, array in piece.items():
            plain = array.numpy() if isinstance(array, Tensor) else array
            by_name.setdefault(name, []).append(plain)
    return {name: np.concatenate(_of_one_width(arrays)) for name, arrays in by_name.items()}


def _of_one_width(arrays: list[np.ndarray]) -> list[np.ndarray]:
    shape = np.max([array.shape[1:] for array in arrays], axis=0) if arrays[0].ndim > 1 else ()
    if all(tuple(array.shape[1:]) == tuple(shape) for array in arrays):
        return arrays
    padded = []
    for array in arrays:
        missing = [(0, int(width - size)) for width, size in zip(shape, array.shape[1:])]
        padded.append(np.pad(array.astype(np.float64), [(0, 0), *missing], constant_values=np.nan))
    return padded


def _compare(
    report: ParityReport,
    expected: Arrays,
    actual: Arrays,
    ids: np.ndarray,
    scales: Mapping[str, np.ndarray],
    export: Export,
    rows: HeldOutRows,
) -> None:
    """Enter the largest difference of every output into the report."""
    if set(expected) != set(actual):
        raise ExportError(
            f"the export gives {', '.join(actual) or 'nothing'}, and the artifact "
            f"{', '.join(expected)}."
        )
    for name, one in expected.items():
        other = actual[name]
        if one.ndim != other.ndim or len(one) != len(other):
            raise ExportError(
                f"the export gives {name} of shape {list(other.shape)}, and the artifact of "
                f"{list(one.shape)}."
            )
        one, other = (_without_left_out(array, export, name) for array in (one, other))
        # one side may have padded further than the other
        common = tuple(slice(0, min(sizes)) for sizes in zip(one.shape, other.shape))
        one, other = one[common].astype(np.float64), other[common].astype(np.float64)
        differences = _differences(one, other, np.asarray(scales.get(name, 1.0)))
        if not differences.size:
            continue
        at = np.unravel_index(int(differences.argmax()), differences.shape)
        largest = float(differences[at])
        report.by_output[name] = max(report.by_output.get(name, 0.0), largest)
        if largest > report.difference or not report.where:
            report.difference = largest
            row = int(ids[at[0]])
            entry = f"[{', '.join(str(int(index)) for index in at[1:])}]" if len(at) > 1 else ""
            source = rows.table.where(row) if row < len(rows.table) else f"example {row:,}"
            report.where = (
                f"{source}, output {name}{entry}: {other[at]:.9g} in place of {one[at]:.9g}, "
                f"{largest:.3g} apart"
            )


def _differences(one: np.ndarray, other: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The difference of each entry, divided by `scale`; 0 where both are NaN or the same infinity,
    infinite where only one is NaN."""
    both_nan = np.isnan(one) & np.isnan(other)
    with np.errstate(invalid="ignore"):  # infinity minus itself
        differences = np.where(both_nan | (one == other), 0.0, np.abs(one - other)) / scale
    return np.where(np.isnan(differences), np.inf, differences)


def _without_left_out(array: np.ndarray, export: Export, name: str) -> np.ndarray:
    """An output without the entries of its last axis that the files lack: special tokens of danlu's
    own, of which there are few."""
    left_out = export.manifest["runs"].get("left_out", {}).get(name, [])
    if not left_out:
        return array
    special = all(type(entry) is int and 0 <= entry < FIRST_TOKEN for entry in left_out)
    if len(left_out) > FIRST_TOKEN or not special:
        raise ExportError(
            f"the export leaves out entries of {name} that are no special tokens of danlu's own."
        )
    return np.delete(array, left_out, axis=-1)


def check_accuracy(
    artifact: Artifact, export: Export, data: str | None, max_drop: float
) -> ParityReport:
    """Compare the accuracy of an export in lower precision with its artifact's, on at most 2,000
    held-out rows (of `data`, or of the recipe's own test split).

    Raises ExportError where it falls by more than `max_drop`, 0 to 1, and ArtifactError where the
    model does not classify rows.
    """
    task = artifact.task
    if not isinstance(task, ClassifiesRows) or not isinstance(task, EncodesTargets):
        raise ArtifactError(
            "a lower precision is checked by accuracy, and this model does not classify rows."
        )
    rows = select_held_out(artifact, data, _ACCURACY_ROWS)
    targets = [name for name in task.target_names if name in rows.table.columns]
    if not targets:
        raise ArtifactError(
            "the rows to compare hold no target, so accuracy cannot be computed.",
            where=rows.origin,
            hint="name a file that has it",
        )
    truth = task.encode({name: rows.table.columns[name] for name in targets})
    report = ParityReport(len(rows), rows.origin, max_drop)
    right = np.zeros(2)
    for expected, actual, ids in _run_rows(artifact, export, rows):
        _compare(report, expected, actual, ids, {}, export, rows)
        for side, arrays in enumerate((expected, actual)):
            right[side] += (arrays["probabilities"].argmax(axis=1) == truth[ids]).sum()
    before, after = (float(count) / max(len(rows), 1) for count in right)
    report.accuracy = (before, after)
    if not before - after <= max_drop:
        raise ExportError(
            f"accuracy falls from {before:.4f} to {after:.4f} on {len(rows):,} rows "
            f"({rows.origin}); it may fall by {max_drop:g} at most.",
            where=export.exporter_name,
            hint="nothing was kept; allow more, calibrate on more rows, or keep float32",
        )
    return report


def _compare_answers(artifact: Artifact, export: Export, rows: HeldOutRows, allowed: float) -> int:
    """How many answers were compared. Raises ExportError for the first that says something else."""
    raw = as_rows(raw_values(rows.table, list(artifact.preprocessor.row_schema)))
    expected, actual = artifact.predict(raw), export.predict(raw)
    if len(expected) != len(actual):
        raise ExportError(
            f"the export gives {len(actual):,} answers, and the artifact {len(expected):,}."
        )
    for row, (one, other) in enumerate(zip(expected, actual)):
        difference = first_difference(one, other, allowed)
        if difference and not differ_by_a_tie(one, other, allowed):
            raise ExportError(
                f"the export does not answer as the artifact does: {rows.table.where(row)}, "
                f"{difference}.",
                hint="nothing was kept; please report this recipe",
            )
    return len(expected)
