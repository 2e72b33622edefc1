"""The parity check: which rows it takes, what it measures, and when two answers say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import danlu
import make
from danlu.errors import ArtifactError, ExportError
from danlu.exporting.answer_difference import differ_by_a_tie, first_difference
from danlu.exporting.export import export
from danlu.exporting.held_out import as_rows, raw_values, select_held_out, training_inputs
from danlu.exporting.loader import Export
from danlu.exporting.parity import ParityReport, check_accuracy, check_parity

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[danlu.Artifact]:
    home = tmp_path_factory.mktemp("artifact")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANLU_CACHE", str(home / "cache"))
        recipe = make.iris(name="iris", model={"name": "mlp", "hidden": [5]}, train={"steps": 4})
        yield danlu.train(recipe, home / "run")


@pytest.fixture(scope="module")
def exported(artifact: danlu.Artifact, tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(artifact, "torch_export", tmp_path_factory.mktemp("export") / "iris")


def with_outputs_changed(exported: Export, row: int, by: float) -> Export:
    """An export whose first probability of one row is `by` higher."""

    def run(arrays: Arrays) -> Arrays:
        outputs = {name: array.copy() for name, array in exported.run(arrays).items()}
        outputs["probabilities"][row, 0] += by
        return outputs

    return replace(exported, run=run)


def test_the_rows_are_of_the_test_split_and_of_validation_where_it_is_small(
    artifact: danlu.Artifact,
) -> None:
    few, many = select_held_out(artifact, least=5), select_held_out(artifact, least=10_000)
    assert len(few) == 5 and "the test split of" in few.origin
    assert "validation" not in few.origin
    assert "the test split and validation of" in many.origin
    assert few.fields is None, "an example is a row"


def test_an_equal_export_is_reported_with_every_row_and_answer(
    artifact: danlu.Artifact, exported: Export
) -> None:
    rows = select_held_out(artifact, least=12)
    report = check_parity(artifact, exported, rows)
    assert report.rows == report.answers == 12
    assert report.difference <= 1e-6 and set(report.by_output) == {"probabilities"}
    assert report.as_dict() == {
        "rows": 12,
        "of": rows.origin,
        "allowed": 1e-4,
        "largest_difference": report.difference,
        "where": report.where,
        "by_output": report.by_output,
        "answers": 12,
        "accuracy": None,
    }


def test_the_largest_difference_is_refused_with_row_output_and_both_values(
    artifact: danlu.Artifact, exported: Export
) -> None:
    rows = select_held_out(artifact, least=12)
    with pytest.raises(ExportError) as refusal:
        check_parity(artifact, with_outputs_changed(exported, 3, 0.01), rows)
    said = str(refusal.value)
    assert f"{rows.table.where(3)}, output probabilities[0]: " in said
    assert "0.01 apart" in said and "0.0001" in said


def test_a_missing_number_is_no_equal_answer(artifact: danlu.Artifact, exported: Export) -> None:
    rows = select_held_out(artifact, least=12)
    with pytest.raises(ExportError, match="nan in place of"):
        check_parity(artifact, with_outputs_changed(exported, 0, float("nan")), rows)


def test_other_outputs_and_other_shapes_are_refused(
    artifact: danlu.Artifact, exported: Export
) -> None:
    rows = select_held_out(artifact, least=12)
    renamed = replace(exported, run=lambda arrays: {"logits": np.zeros((12, 3))})
    with pytest.raises(ExportError, match="gives logits, and the artifact probabilities"):
        check_parity(artifact, renamed, rows)
    flat = replace(exported, run=lambda arrays: {"probabilities": np.zeros(12)})
    with pytest.raises(ExportError, match=r"of shape \[12\], and the artifact of \[12, 3\]"):
        check_parity(artifact, flat, rows)


def test_a_lower_precision_may_lose_accuracy_up_to_a_limit(
    artifact: danlu.Artifact, exported: Export
) -> None:
    report = check_accuracy(artifact, exported, None, 0.0)
    assert report.accuracy is not None and report.accuracy[0] == report.accuracy[1]

    def always_the_first(arrays: Arrays) -> Arrays:
        probabilities = np.zeros((len(next(iter(arrays.values()))), 3))
        probabilities[:, 0] = 1.0
        return {"probabilities": probabilities}

    blind = replace(exported, run=always_the_first)
    before = report.accuracy[0]
    after = check_accuracy(artifact, blind, None, 1.0).accuracy
    assert after is not None and after[0] == before
    if after[1] < before:
        with pytest.raises(ExportError, match="accuracy falls from"):
            check_accuracy(artifact, blind, None, (before - after[1]) / 2)


def test_accuracy_needs_the_targets_of_the_rows(
    artifact: danlu.Artifact, exported: Export, tmp_path: Path
) -> None:
    rows = select_held_out(artifact, least=4)
    names = list(artifact.inputs)
    table = as_rows(raw_values(rows.table, names))
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in table)]
    (tmp_path / "without.csv").write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(ArtifactError, match="hold no target"):
        check_accuracy(artifact, exported, str(tmp_path / "without.csv"), 0.1)


def test_calibration_takes_so_many_training_rows(artifact: danlu.Artifact) -> None:
    inputs = training_inputs(artifact, 8)
    assert {name: tuple(tensor.shape) for name, tensor in inputs.items()} == {"numbers": (8, 4)}


@pytest.mark.parametrize(
    ("expected", "actual", "difference"),
    [
        ({"a": 1}, {"b": 1}, "the answer names b in place of a"),
        ([1.0], [1.0, 2.0], "the answer has 2 entries in place of 1"),
        ({"p": {"yes": 0.5}}, {"p": {"yes": 0.6}}, "yes is 0.6 in place of 0.5"),
        ({"p": True}, {"p": 1}, "p is 1 in place of true"),
        ({"p": 0.5}, {"p": 0.5009}, ""),
        ({"p": float("inf")}, {"p": float("inf")}, ""),
    ],
)
def test_the_first_difference_of_two_answers_is_named(
    expected: object, actual: object, difference: str
) -> None:
    assert first_difference(expected, actual, 1e-4) == difference


def test_classes_that_are_equally_likely_are_no_difference() -> None:
    likely = {"a": 0.49995, "b": 0.50005}
    one = {"prediction": "b", "probabilities": likely}
    other = {"prediction": "a", "probabilities": likely}
    assert differ_by_a_tie(one, other, 1e-4)
    assert not differ_by_a_tie(one, other, 1e-6)
    sure = {"prediction": "a", "probabilities": {"a": 0.9, "b": 0.1}}
    assert not differ_by_a_tie(sure, {**sure, "prediction": "b"}, 1e-4)
    assert not differ_by_a_tie({"prediction": 1.0}, {"prediction": 2.0}, 1e-4)


def test_a_report_begins_without_a_difference() -> None:
    report = ParityReport(0, "no rows", 0.5)
    assert report.difference == 0.0 and report.where == "" and report.accuracy is None
