"""Spans of tags and their F1, beside the rules that the program conlleval publishes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from danlu import registry
from danlu.errors import RecipeError
from danlu.parts.metrics.span_f1 import Config, SpanF1, build
from danlu.parts.tasks._spans import SpanFinder, complete_tag_set, tagging_scheme
from danlu.terms import IGNORED, Batch

TAGS = ("B-X", "B-Y", "I-X", "I-Y", "O")
ALL = (*TAGS, "E-X", "E-Y", "S-X", "S-Y")


def conlleval(tags: list[str]) -> list[tuple[int, int, str]]:
    """(first word, the one after the last, type) of each span, word after word as conlleval goes; E
    and S as its later ports have them."""
    found, begun = [], 0
    before, kind_before = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        letter, _, kind = tag.partition("-")
        ends = (
            (before in "BI" and letter in ("B", "O", "S"))
            or before in ("E", "S")
            or (before != "O" and kind_before != kind)
        )
        starts = (
            letter in ("B", "S")
            or (before in ("E", "S", "O") and letter in ("E", "I"))
            or (letter != "O" and kind_before != kind)
        )
        if before != "O" and ends:
            found.append((begun, place, kind_before))
        if starts:
            begun = place
        before, kind_before = letter, kind
    return found


def padded(rows: list[list[str]], tags: tuple[str, ...], fill: int = IGNORED) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor(
        [[tags.index(tag) for tag in row] + [fill] * (longest - len(row)) for row in rows]
    )


def drawn(draw: random.Random, tags: tuple[str, ...], sizes: list[int]) -> list[list[str]]:
    return [[draw.choice(tags) for _ in range(size)] for size in sizes]


@pytest.mark.parametrize("tags", [TAGS, ALL], ids=["bio", "bioes"])
def test_spans_are_those_of_conlleval_also_where_tags_break_their_scheme(
    tags: tuple[str, ...],
) -> None:
    draw = random.Random(1)
    finder = SpanFinder(tags)
    for _ in range(300):
        rows = drawn(draw, tags, [draw.randint(0, 9) for _ in range(3)] + [9])
        spans = finder.find(padded(rows, tags))
        found: list[list[tuple[int, int, str]]] = [[] for _ in rows]
        for row, start, stop, kind in zip(
            *(each.tolist() for each in (spans.rows, spans.starts, spans.stops, spans.types))
        ):
            found[row].append((start, stop, finder.types[kind]))
        assert found == [conlleval(row) for row in rows]


def counted(
    metric: SpanF1,
    predicted: list[list[str]],
    actual: list[list[str]],
    tags: tuple[str, ...] = TAGS,
) -> dict[str, Any]:
    target = padded(actual, tags)
    best = padded(predicted, tags, fill=0)  # after a row's end a model may say anything
    outputs = torch.nn.functional.one_hot(best, len(tags)).float()
    return metric.count(outputs, Batch({}, target, torch.arange(len(target))))


def test_precision_recall_and_f1_of_a_case_by_hand() -> None:
    actual = [["B-X", "I-X", "O", "B-Y", "B-Y"], ["O", "B-X"]]
    predicted = [["B-X", "I-X", "O", "B-Y", "I-Y"], ["B-X", "B-X"]]
    # true: X(0-2) Y(3-4) Y(4-5) and X(1-2); found: X(0-2) Y(3-5) and X(0-1) X(1-2); right: two of
    # them
    metric = SpanF1(TAGS)
    score = metric.score(counted(metric, predicted, actual))
    assert score["span_precision"] == pytest.approx(2 / 4)
    assert score["span_recall"] == pytest.approx(2 / 4)
    assert score["span_f1"] == pytest.approx(0.5)
    assert score["span_types"]["X"] == {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "spans": 2}
    assert score["span_types"]["Y"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "spans": 2}


def test_the_score_does_not_depend_on_batches_and_is_that_of_sets_of_spans() -> None:
    draw = random.Random(7)
    sizes = [draw.randint(1, 12) for _ in range(40)]
    actual, predicted = drawn(draw, TAGS, sizes), drawn(draw, TAGS, sizes)
    metric = SpanF1(TAGS)
    whole = counted(metric, predicted, actual)
    pieces = [
        counted(metric, predicted[start : start + 7], actual[start : start + 7])
        for start in range(0, 40, 7)
    ]
    assert all(
        torch.equal(whole[name], torch.stack([piece[name] for piece in pieces]).sum(0))
        for name in whole
    )
    sets = [
        ({(row, *span) for row, tags in enumerate(rows) for span in conlleval(tags)})
        for rows in (predicted, actual)
    ]
    right = len(sets[0] & sets[1])
    assert metric.score(whole)["span_f1"] == pytest.approx(
        2 * right / (len(sets[0]) + len(sets[1]))
    )


def test_no_spans_anywhere_have_no_score_and_places_without_a_tag_none() -> None:
    metric = SpanF1(TAGS)
    assert metric.score(counted(metric, [["O"]], [["O"]]))["span_f1"] is None
    target = torch.tensor([[0, IGNORED, 2]])  # B-X, nothing asked, I-X: two spans
    outputs = torch.nn.functional.one_hot(torch.tensor([[0, 2, 2]]), 5).float()
    total = metric.count(outputs, Batch({}, target, torch.zeros(1)))
    assert total["actual"].tolist() == [2, 0]
    assert total["right"].tolist() == [2, 0]


def test_the_scheme_is_seen_in_the_tags() -> None:
    assert tagging_scheme(["O", "B-X", "I-X"]) == "bio"
    assert tagging_scheme(["O", "I-X", "I-Y"]) == "io"
    assert tagging_scheme(["O", "B-X", "E-X", "S-Y"]) == "bioes"
    assert tagging_scheme(["B-X", "L-X", "U-X"]) == "bioes"
    assert tagging_scheme(["NN", "O"]) == "none"
    assert tagging_scheme(["O"]) == "none"
    assert complete_tag_set(["O", "B-X", "I-Y"]) == ["B-X", "B-Y", "I-X", "I-Y", "O"]
    assert complete_tag_set(["O", "S-X"]) == ["B-X", "E-X", "I-X", "O", "S-X"]
    assert complete_tag_set(["O", "U-X"]) == ["B-X", "I-X", "L-X", "O", "U-X"]
    assert complete_tag_set(["VB", "NN"]) == ["NN", "VB"]


def test_a_task_without_tags_is_refused() -> None:
    class Speaking:
        classes = ()

    with pytest.raises(RecipeError, match="this task tags none"):
        build(Config(), Speaking())
    assert "span_f1" in registry.task_facts("token_classification").metrics
