"""Sequence-level distillation: the student's training rows hold what the teacher writes, all others what the data holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import danlu
import make
from danlu.artifact.artifact import Contents
from danlu.compression import costs, teacher_texts
from danlu.compression.compress import OwnRows
from danlu.compression.compressors.distil import Config
from danlu.compression.distillation import DistillationSetup
from danlu.compression.teacher_texts import TeacherTexts, replace_texts
from danlu.data.dataset import Dataset, prepare
from danlu.data.examples import Ragged
from danlu.errors import DanluError, PartError
from danlu.recipe import Train
from danlu.terms import IGNORED, Column

STUDENT = {"model": {"width": 16}, "epochs": 2, "sequences": True}
LETTERS = {"name": "tokenize", "kind": "characters", "end": True}


def backwards(folder: Path, rows: int = 200) -> dict[str, Any]:
    """A recipe of words and what they are read backwards; its splits are drawn."""
    draw = np.random.default_rng(2)
    words = ["".join(draw.choice(list("abcd"), int(size))) for size in draw.integers(1, 6, rows)]
    (folder / "words.there").write_text("".join(f"{word}\n" for word in words))
    (folder / "words.back").write_text("".join(f"{word[::-1]}\n" for word in words))
    return {
        "task": {"name": "sequence_to_sequence", "kind": "characters", "num_beams": 2, "max_tokens": 6},
        "data": {
            "source": {"name": "parallel_text", "path": str(folder / "words.{there,back}")}, "target": "back", "checks": "off",
            "transforms": {"text": [LETTERS]}, "columns": {"there": {"kind": "text", "transforms": [LETTERS]}},
        },
        "model": {"name": "seq2seq", "size": "tiny", "width": 32, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0},
        "metrics": ["perplexity", "accuracy"],
        "train": {"steps": 60, "batch_size": 32, "threads": 1},
    }  # fmt: skip


def talks(folder: Path) -> dict[str, Any]:
    """A recipe of conversations with one answer or two."""
    draw, lines = np.random.default_rng(3), []
    for _ in range(120):
        talk = []
        for word in ("".join(draw.choice(list("xyz"), 2)) for _ in range(int(draw.integers(1, 3)))):
            talk += [
                {"role": "user", "content": word},
                {"role": "assistant", "content": word[::-1] + "."},
            ]
        lines.append(json.dumps({"messages": json.dumps(talk)}))
    (folder / "talks.jsonl").write_text("\n".join(lines) + "\n")
    return {
        "task": {"name": "instruction_tuning", "context": 64, "answer_tokens": 5},
        "data": {
            "source": str(folder / "talks.jsonl"), "checks": "off",
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
        },
        "model": {"name": "gpt", "num_layers": 1, "num_heads": 2, "width": 32},
        "train": {"steps": 60, "batch_size": 16, "threads": 1},
    }  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def nothing_is_written_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "SECONDS", 0.0)
        patch.setattr(teacher_texts, "KEPT", 40)
        patch.setenv("DANLU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> danlu.Artifact:
    folder = tmp_path_factory.mktemp("backwards")
    return danlu.train(backwards(folder), run=folder / "run")


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> danlu.Artifact:
    folder = tmp_path_factory.mktemp("talks")
    return danlu.train(talks(folder), run=folder / "run")


def retold(teacher: Contents, folder: Path) -> tuple[Dataset, Dataset, list[str]]:
    """(the data, the data that a student is trained on, what was told)."""
    told: list[str] = []
    plain = prepare(teacher.recipe)
    rewrite = TeacherTexts(
        teacher, OwnRows(teacher), folder, "digest", Train(device="cpu"), lambda text: None, told
    )
    return plain, rewrite(prepare(teacher.recipe)), told


def asked(data: Dataset, split: str) -> list[str]:
    """What the rows of a split are asked to write."""
    assert isinstance(data.target, Ragged)
    rows = [data.target.row(row) for row in data.splits[split].tolist()]
    return [data.task.tokenizer.decode(row[row != IGNORED]) for row in rows]


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("weights.safetensors", "artifact.json")}


# --- texts


def test_some_rows_of_a_text_column_are_rewritten_and_the_rest_stay() -> None:
    letters = "früherspäter"
    offsets = np.array([0, 7, 7, 14])
    column = Column(
        "t",
        "text",
        np.frombuffer(f"{letters}unread".encode(), np.uint8),
        offsets=offsets,
        missing=np.array([0, 1, 0], bool),
    )
    found = replace_texts(column, np.array([1, 2]), ["", "中国"])
    assert [found.text(row) for row in range(3)] == ["früher", "", "中国"]
    assert [column.text(row) for row in range(3)] == ["früher", None, "später"]
    assert [replace_texts(column, np.zeros(0, np.int64), []).text(row) for row in range(3)] == [
        "früher",
        None,
        "später",
    ]


def test_training_rows_hold_what_the_teacher_answers_and_all_others_what_the_data_holds(
    translator: danlu.Artifact, tmp_path: Path
) -> None:
    plain, taught, told = retold(translator, tmp_path)
    sources = [plain.table.columns["there"].text(row) for row in plain.splits["train"].tolist()]
    answers = [
        each["prediction"] for each in translator.predict([{"there": each} for each in sources])
    ]
    own, now = asked(plain, "train"), asked(taught, "train")
    kept = [not answer or len(answer) >= 6 for answer in answers]  # empty, or cut off at max_tokens
    assert now == [mine if keep else answer for mine, answer, keep in zip(own, answers, kept)]
    assert (
        sum(mine != each for mine, each in zip(own, now)) > 20
    )  # a teacher of 60 steps is often wrong
    for split in ("validation", "test"):
        assert asked(taught, split) == asked(plain, split)
    assert taught.digest == plain.digest
    assert taught.task.state() == plain.task.state()
    assert told[0].startswith(
        f"{len(own) - sum(kept)} of {len(own)} training rows hold what the teacher writes"
    )


def test_a_text_without_an_end_or_without_a_letter_leaves_the_row_as_it_is(
    translator: danlu.Artifact, tmp_path: Path
) -> None:
    task = translator.task
    config = task.config
    try:
        task.config = config.model_copy(update={"max_tokens": 2})
        plain, taught, told = retold(translator, tmp_path)
    finally:
        task.config = config
    now = asked(taught, "train")
    changed = [each for each, mine in zip(now, asked(plain, "train")) if each != mine]
    assert all(len(each) == 1 for each in changed)  # one letter and the end
    assert any(len(each) > 2 for each in now)
    assert "keep their own text" in told[0]


def test_an_answer_without_an_end_leaves_the_conversation_as_it_is(
    assistant: danlu.Artifact, tmp_path: Path
) -> None:
    task, config = assistant.task, assistant.task.config
    try:
        task.config = config.model_copy(
            update={"answer_tokens": 3}
        )  # three signs, and no room for the end
        plain, taught, told = retold(assistant, tmp_path)
    finally:
        task.config = config
    assert asked(taught, "train") == asked(plain, "train")
    assert told[0].startswith("0 of ")


def test_every_answer_of_a_conversation_is_what_the_teacher_says_to_what_then_stands_before_it(
    assistant: danlu.Artifact, tmp_path: Path
) -> None:
    plain, taught, _ = retold(assistant, tmp_path)
    for split in ("validation", "test"):
        assert asked(taught, split) == asked(plain, split)
    changed = twice = 0
    prompts, answers = [], []
    for row in plain.splits["train"].tolist():
        now, before = (data.examples.inputs["tokens"].row(row) for data in (taught, plain))  # type: ignore[union-attr]
        if now.tolist() == before.tolist():
            continue
        changed += 1
        talk = turns(taught, row)
        for place in range(1, len(talk), 2):
            prompt = "".join(f"\x1e{each['role']}\n{each['content']}" for each in talk[:place])
            prompts.append({"prompt": prompt})
            answers.append({"prediction": talk[place]["content"]})
        twice += len(talk) == 4
        assert [each["content"] for each in talk[::2]] == [
            each["content"] for each in turns(plain, row)[::2]
        ]
    assert assistant.predict(prompts) == answers
    assert changed > 20
    assert twice > 5


def turns(data: Dataset, row: int) -> list[dict[str, str]]:
    """The conversation of an example, read back from its tokens."""
    tokens, target = data.examples.inputs["tokens"], data.target
    assert isinstance(tokens, Ragged)
    assert isinstance(target, Ragged)
    codes = [*tokens.row(row).tolist(), int(target.row(row)[-1])]
    starts = [place for place, code in enumerate(codes) if code == codes[0]] + [len(codes)]
    found = []
    for low, high in pairwise(starts):
        role, _, content = data.task.tokenizer.decode(codes[low:high]).partition("\n")
        found.append({"role": role, "content": content})
    return found


# --- whole compressions


def test_a_compression_killed_while_the_teacher_writes_goes_on_to_the_same_bytes(
    translator: danlu.Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"name": "distil", **STUDENT}
    whole = danlu.compress(translator, [step], tmp_path / "whole").artifact
    assert whole.path is not None
    written: list[int] = []
    write = TeacherTexts._written

    def killed(self: TeacherTexts, rows: Any, which: np.ndarray) -> Any:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(len(which))
        return write(self, rows, which)

    with monkeypatch.context() as patch, pytest.raises(DanluError):
        patch.setattr(TeacherTexts, "_written", killed)
        danlu.compress(translator, [step], tmp_path / "killed")
    (texts,) = (tmp_path / ".killed.compressing").glob("texts-*")
    assert [each.name for each in sorted(texts.iterdir())] == ["000000.json", "000001.json"]
    half = texts / "000001.json"
    half.write_bytes(half.read_bytes()[:-30])  # what is not whole is written again
    pieces: list[int] = []

    def counted(self: TeacherTexts, rows: Any, which: np.ndarray) -> Any:
        pieces.append(len(which))
        return write(self, rows, which)

    with monkeypatch.context() as patch:
        patch.setattr(TeacherTexts, "_written", counted)
        again = danlu.compress(translator, [step], tmp_path / "killed").artifact
    assert written == [40, 40]
    assert sum(pieces) == len(prepare(translator.recipe).splits["train"]) - 40
    assert again.path is not None
    assert files(again.path) == files(whole.path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["killed", "whole"]


def test_what_the_teacher_writes_makes_another_student_than_the_data(
    translator: danlu.Artifact, tmp_path: Path
) -> None:
    found = {}
    for name, options in {
        "data": {"weight": 0.0, "sequences": False},
        "texts": {"weight": 0.0},
        "both": {"weight": 0.5},
    }.items():
        result = danlu.compress(
            translator, [{"name": "distil", **STUDENT, **options}], tmp_path / name
        )
        assert result.rows == len(prepare(translator.recipe).splits["test"])
        assert danlu.evaluate(danlu.load(tmp_path / name)).values["loss"] == pytest.approx(
            result.after["scores"]["loss"]
        )
        assert any("what the teacher writes" in each for each in result.notes) == (name != "data")
        found[name] = (tmp_path / name / "weights.safetensors").read_bytes()
    assert len(set(found.values())) == 3


def test_a_student_of_conversations_is_trained_on_the_teachers_answers(
    assistant: danlu.Artifact, tmp_path: Path
) -> None:
    result = danlu.compress(
        assistant, [{"name": "distil", **STUDENT, "weight": 0.5}], tmp_path / "out"
    )
    assert any("training rows hold what the teacher writes" in each for each in result.notes)
    assert result.artifact.predict([{"prompt": "xy"}])[0].keys() == {"prediction"}


def test_a_teacher_of_another_vocabulary_teaches_by_its_texts_alone(
    translator: danlu.Artifact, tmp_path: Path
) -> None:
    raw = translator.recipe.as_dict()
    other = {
        **raw,
        "task": {**raw["task"], "kind": "bytes"},
        "train": {**raw["train"], "steps": 20},
    }
    teacher = danlu.train(other, run=tmp_path / "run")
    step = {"name": "distil", **STUDENT, "epochs": 0.5, "teacher": str(teacher.path)}
    found = danlu.compress(translator, [{**step, "weight": 0.0}], tmp_path / "out").artifact
    assert found.task.output.size == translator.task.output.size != teacher.task.output.size
    with pytest.raises(DanluError, match="other classes than the artifact"):
        danlu.compress(translator, [step], tmp_path / "both")


def test_logits_of_a_teacher_whose_vocabulary_was_learnt_from_other_rows_teach_nothing(
    translator: danlu.Artifact, tmp_path: Path
) -> None:
    raw = translator.recipe.as_dict()
    raw = {
        **raw,
        "task": {**raw["task"], "kind": "bpe", "vocabulary": 275},
        "train": {**raw["train"], "steps": 3},
    }
    mine, other = (
        danlu.train({**raw, "train": {**raw["train"], "seed": seed}}, run=tmp_path / f"{seed}")
        for seed in (0, 1)
    )
    assert (
        mine.task.output.size == other.task.output.size
    )  # nothing but the words that the codes stand for
    assert mine.task.state() != other.task.state()
    step = {"name": "distil", "model": {"width": 16}, "epochs": 0.5, "teacher": str(other.path)}
    with pytest.raises(PartError, match="are prepared in another way"):
        danlu.compress(mine, [step], tmp_path / "out")


def test_by_texts_alone_the_teacher_is_not_asked_during_training(
    translator: danlu.Artifact,
) -> None:
    loss: list[Any] = []
    for weight, same in ((0.0, True), (0.5, False)):
        lesson = DistillationSetup(
            Config.model_validate({"model": "rnn", "sequences": True, "weight": weight}),
            translator,
            OwnRows(translator),
            translator.recipe,
            [],
        )
        assert (lesson(loss, translator.module, prepare(translator.recipe)) is loss) == same


def test_a_student_with_a_seed_of_its_own_is_measured_on_the_rows_that_were_held_out(
    translator: danlu.Artifact, tmp_path: Path
) -> None:
    raw = translator.recipe.as_dict()
    student = {
        **raw,
        "model": {**raw["model"], "width": 16},
        "train": {**raw["train"], "seed": 7, "steps": 3},
    }
    (tmp_path / "student.yaml").write_text(json.dumps(student))
    step = {
        "name": "distil",
        "student": str(tmp_path / "student.yaml"),
        "weight": 0.0,
        "sequences": True,
    }
    found = danlu.compress(translator, [step], tmp_path / "out").artifact
    for split, rows in prepare(translator.recipe).splits.items():
        assert prepare(found.recipe).splits[split].tolist() == rows.tolist()


def test_a_task_without_texts_to_write_is_refused(tmp_path: Path) -> None:
    digits = danlu.train(
        make.iris(train={"steps": 2, "threads": 1}),
        run=tmp_path / "run",
    )
    with pytest.raises(
        PartError,
        match=r"classification has no row that is answered with a text.*\n?.*instruction_tuning",
    ):
        danlu.compress(
            digits,
            [{"name": "distil", "model": {"hidden": [3]}, "sequences": True}],
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()
