"""A tag for every word: from a column file to answers with spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import danlu
from danlu import registry
from danlu.data.examples import Examples, Ragged
from danlu.errors import DataError
from danlu.parts.tasks import token_classification
from danlu.parts.tasks.token_classification import Config
from danlu.reading.word_lists import sequence_column
from danlu.terms import IGNORED, UNKNOWN, Column, InputSpec, Table

TAGS = [["B-NP", "I-NP", "O"], ["B-VP"], ["O", "B-NP"]]
WORDS = [["the", "dog", "."], ["runs"], ["!", "dogs"]]


def task_of(tags: list[list[str | None]] | list[list[str]] = TAGS, **options: Any) -> Any:
    return token_classification.build(
        Config.model_validate(options), {"tag": sequence_column("tag", tags)}
    )  # type: ignore[arg-type]


def ragged(rows: list[list[int]]) -> Ragged:
    values = np.array([each for row in rows for each in row], dtype=np.int32)
    return Ragged(values, np.cumsum([0, *map(len, rows)]).astype(np.int64))


def framed(
    task: Any, tokens: Ragged, target: Column | None, splits: dict[str, np.ndarray] | None = None
) -> Examples:
    rows = np.arange(len(tokens))
    table = Table({"word": sequence_column("word", WORDS)}, "a.conll")
    targets = {} if target is None else {"tag": target}
    described = {"tokens": InputSpec("tokens", (3,), cardinalities=(20,))}
    return task.make_examples(
        {"tokens": tokens}, described, targets, splits or {"train": rows}, table
    )


def test_tags_are_numbered_and_a_type_has_all_its_tags() -> None:
    task = task_of()
    assert task.classes == ("B-NP", "B-VP", "I-NP", "I-VP", "O")  # I-VP is seen nowhere
    assert task.class_counts == (2, 1, 1, 0, 2)
    encoded = task.encode({"tag": sequence_column("tag", [["O", None], [], ["I-VP"]])})
    assert encoded.values.tolist() == [4, IGNORED, 3]
    assert encoded.offsets.tolist() == [0, 2, 2, 3]
    assert encoded.fill == IGNORED
    assert "BIO" in task.describe()
    again = token_classification.restore(
        Config.model_validate({}), json.loads(json.dumps(task.state()))
    )
    assert again.classes == task.classes
    assert again.output == task.output


def test_a_tag_that_no_training_row_shows_is_refused_or_left_out() -> None:
    strange = sequence_column("tag", [["B-LOC", "O", "B-LOC"]])
    with pytest.raises(DataError, match=r"B-LOC at 2 words, which no training row has"):
        task_of().encode({"tag": strange})
    assert task_of(unseen="ignore").encode({"tag": strange}).values.tolist() == [
        IGNORED,
        4,
        IGNORED,
    ]


def test_tags_can_be_weighed() -> None:
    task = task_of()
    assert task.class_weights(None) is None
    assert task.class_weights({"O": 0.5}) == [1.0, 1.0, 1.0, 1.0, 0.5]
    assert task.class_weights("balanced") == [
        6 / (5 * count) for count in (2, 1, 1, 1, 2)
    ]  # I-VP is seen nowhere
    with pytest.raises(DataError, match="'B-PP' is not a tag of tag"):
        task.class_weights({"B-PP": 2.0})


def test_what_is_no_row_of_tags_is_refused() -> None:
    plain = Column("tag", "category", np.zeros(3, dtype=np.int32), categories=("a",))
    with pytest.raises(DataError, match="every word needs a tag of its own"):
        token_classification.build(Config.model_validate({}), {"tag": plain})
    with pytest.raises(DataError, match="the tag O at every word"):
        task_of([["O", "O"]])
    with pytest.raises(DataError, match="missing in 1 of 2 rows"):
        lost = sequence_column("tag", [["O"], []], missing=np.array([False, True]))
        token_classification.build(Config.model_validate({}), {"tag": lost})


def test_words_and_tags_must_agree_in_number() -> None:
    task = task_of()
    target = sequence_column("tag", TAGS)
    assert framed(task, ragged([[5, 6, 7], [8], [9, 5]]), target).target.values.tolist() == [
        0,
        2,
        4,
        1,
        4,
        0,
    ]
    with pytest.raises(
        DataError, match=r"the target tag has 1 places and the input tokens 2"
    ) as caught:
        framed(task, ragged([[5, 6, 7], [8, 8], [9, 5]]), target)
    assert caught.value.problem.where == "a.conll row 2"
    with pytest.raises(DataError, match="no input is a sequence"):
        task.make_examples(
            {"numbers": np.zeros((3, 1))}, {}, {}, {"data": np.arange(3)}, Table({}, "x")
        )


def test_rows_that_take_no_part_hold_no_tags() -> None:
    part = {"train": np.array([0]), "test": np.array([2])}
    lost = sequence_column("tag", [TAGS[0], [], TAGS[2]], missing=np.array([False, True, False]))
    made = framed(task_of(), ragged([[5, 6, 7], [8], [9, 5]]), lost, part)
    assert isinstance(made.target, Ragged)
    assert made.target.row(1).tolist() == []
    assert made.target.row(2).tolist() == [4, 0]


def test_answers_are_as_long_as_their_words_and_name_spans() -> None:
    task = task_of()
    best = torch.tensor([[0, 2, 4], [1, 0, 0]])  # the second row has one word
    outputs = torch.nn.functional.one_hot(best, 5).float()
    answers = task.answers(outputs, torch.tensor([3, 1]))
    assert answers[0] == {
        "prediction": ["B-NP", "I-NP", "O"],
        "spans": [{"start": 0, "stop": 2, "type": "NP"}],
    }
    assert answers[1] == {"prediction": ["B-VP"], "spans": [{"start": 0, "stop": 1, "type": "VP"}]}
    told = task.complete_answers(
        answers, Table({"word": sequence_column("word", WORDS)}, "x"), [0, 1]
    )
    assert told[0]["words"] == WORDS[0]
    assert told[0]["spans"] == [{"start": 0, "stop": 2, "type": "NP", "text": "the dog"}]
    raw = b"The dog, it runs"
    text = Column(
        "text", "text", np.frombuffer(raw, dtype=np.uint8), offsets=np.array([0, len(raw)])
    )
    five = task.answers(torch.nn.functional.one_hot(torch.tensor([[0, 2, 4, 4, 1]]), 5).float())
    told = task.complete_answers(five, Table({"text": text}, "x"), [0])
    assert told[0]["words"] == ["The", "dog", ",", "it", "runs"]
    assert [(span["text"], span["characters"]) for span in told[0]["spans"]] == [
        ("The dog", [0, 7]),
        ("runs", [12, 16]),
    ]


def test_tags_without_spans_are_labels_of_words() -> None:
    task = task_of([["NN", "VB"], ["DT", "NN"]])
    assert task.score_order == ("accuracy", "higher")
    assert task.answers(torch.eye(3)[None]) == [{"prediction": ["DT", "NN", "VB"]}]
    assert "BIO" not in task.describe()


def test_the_baseline_gives_each_word_its_commonest_tag() -> None:
    task = task_of([["B-NP", "O"], ["B-NP", "O"], ["O", "I-NP"], ["B-NP", "O"]])
    tags = sequence_column("tag", [["B-NP", "O"], ["B-NP", "O"], ["O", "I-NP"], ["B-NP", "O"]])
    words = ragged([[5, 6], [5, 6], [6, 7], [8, UNKNOWN]])
    made = framed(task, words, tags, {"train": np.array([0, 1, 2]), "test": np.array([3])})
    # 8 and the unknown word were never seen: the commonest of the training words is O (three of
    # six), which is right once
    assert task.baseline(made, "test") == {"accuracy": 0.5, "span_f1": 0.0}
    assert task.baseline(made, "train") == {"accuracy": 1.0, "span_f1": 1.0}


# --- from a file to answers


def corpus(folder: Path, rows: int = 160) -> Path:
    """Sentences whose tags follow from the words: capitals begin names, and a number stands in
    none."""
    draw = np.random.default_rng(0)
    names, others = (
        ["Ann", "Bob", "Cid", "Dov", "Eve", "Flo"],
        ["sees", "and", "17", "meets", "near"],
    )
    lines = []
    for _ in range(rows):
        for _ in range(int(draw.integers(1, 6))):
            if draw.random() < 0.5:
                size = int(draw.integers(1, 3))
                lines += [
                    f"{draw.choice(names)} NNP {'I' if place else 'B'}-PER" for place in range(size)
                ]
            lines.append(f"{draw.choice(others)} X O")
        lines.append("")
    path = folder / "names.conll"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("names")
    recipe = {
        "task": "token_classification",
        "data": {"source": {"name": "conll", "path": str(corpus(folder)), "columns": ["word", "pos", "tag"]}, "target": "tag",
                 "columns": {"word": {"transforms": [{"name": "vocabulary", "codes": ["characters", "shape"], "longest_word": 5}]}},
                 "cache": False},
        "model": {"name": "rnn", "width": 16, "embedding": 8, "crf": True, "dropout": 0.1},
        "train": {"steps": 60, "batch_size": 16, "threads": 1},
        "optimizer": {"name": "adamw", "learning_rate": 0.02},
    }  # fmt: skip
    return danlu.train(recipe, folder / "run"), folder


def test_a_tagger_learns_what_follows_from_its_words(trained: Any) -> None:
    artifact, _ = trained
    scores = artifact.scores["validation"]
    assert scores["span_f1"] > 0.95
    assert scores["accuracy"] > 0.95
    assert set(artifact.inputs) == {"word", "pos"}


def test_predictions_are_spans_of_words_whatever_stands_beside_them(trained: Any) -> None:
    _, folder = trained
    rows = [
        {"word": ["Ann", "Bob", "sees"], "pos": ["NNP", "NNP", "X"]},
        {"word": ["17"], "pos": ["X"]},
    ]
    loaded = danlu.load(folder / "run")
    first, second = loaded.predict(rows)
    assert first["prediction"] == ["B-PER", "I-PER", "O"]
    assert first["spans"] == [{"start": 0, "stop": 2, "type": "PER", "text": "Ann Bob"}]
    assert second == {"prediction": ["O"], "words": ["17"], "spans": []}
    assert loaded.predict([{"word": "Ann Bob sees", "pos": "NNP NNP X"}]) == [
        first
    ]  # a sentence as it is written
    with pytest.raises(DataError, match="every word needs one tag"):
        loaded.predict([{"word": ["Ann", "Bob"], "pos": ["NNP"]}])
    unlabelled = folder / "new.conll"
    unlabelled.write_text("Ann NNP\nBob NNP\nsees X\n\n17 X\n")
    assert loaded.predict(str(unlabelled)) == [first, second]


def test_a_text_column_is_split_as_its_tags_are(tmp_path: Path) -> None:
    rows = [{"text": " ".join(words), "tags": tags} for words, tags in zip(WORDS * 8, TAGS * 8)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "task": "token_classification",
        "data": {"source": str(path), "target": "tags", "split": {"name": "random", "validation": 0.2, "test": 0}, "cache": False,
                 "columns": {"text": {"kind": "text", "transforms": [{"name": "vocabulary", "codes": []}]}}},
        "model": {"name": "rnn", "width": 16, "embedding": 8, "dropout": 0.0},
        "train": {"steps": 40, "batch_size": 8, "threads": 1},
        "optimizer": {"name": "adamw", "learning_rate": 0.02},
    }  # fmt: skip
    artifact = danlu.train(recipe, tmp_path / "run")
    (answer,) = artifact.predict([{"text": "the  dog."}])
    assert answer["words"] == ["the", "dog", "."]
    assert answer["spans"] == [
        {"start": 0, "stop": 2, "type": "NP", "text": "the  dog", "characters": [0, 8]}
    ]


def test_a_recipe_is_drafted_for_a_column_file(tmp_path: Path) -> None:
    text = danlu.draft(corpus(tmp_path, rows=20), target="tag")
    path = tmp_path / "names.yaml"
    path.write_text(text)
    recipe = danlu.read_recipe(str(path))
    assert recipe.task.name == "token_classification"
    assert recipe.model.name == "rnn"


def test_losses_and_metrics_that_fit_are_listed() -> None:
    part = registry.task_facts("token_classification")
    assert {"span_f1", "accuracy"} <= set(part.metrics)
    assert "cross_entropy" in part.losses
