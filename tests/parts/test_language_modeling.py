"""Running text as pieces, as one stream of tokens, and as what is asked of a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from danlu import read_recipe, registry, tokenizing
from danlu.data import documents
from danlu.data.batches import Batches, Rows
from danlu.data.dataset import prepare
from danlu.data.examples import Examples, Ragged, Windows
from danlu.errors import DataError
from danlu.parts.losses.cross_entropy import Config as LossConfig
from danlu.parts.losses.cross_entropy import build as build_loss
from danlu.parts.tasks import _token_stream as streams
from danlu.parts.tasks import instruction_tuning, language_modeling, masked_language_modeling
from danlu.recipe import Train
from danlu.system.placement import placement_for
from danlu.terms import (
    BEGINNING,
    END,
    FIRST_TOKEN,
    IGNORED,
    MASK,
    PADDING,
    Batch,
    Column,
    InputSpec,
    Table,
)

CHINESE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。\n"
ENGLISH = "All the world's a stage, and all the men and women merely players.\n"


def texts(name: str, rows: list[str | None]) -> Column:
    data = [(row or "").encode() for row in rows]
    offsets = np.cumsum([0, *map(len, data)]).astype(np.int64)
    missing = np.array([row is None for row in rows])
    return Column(
        name,
        "text",
        np.frombuffer(b"".join(data), dtype=np.uint8),
        offsets=offsets,
        missing=missing,
    )


def lines(text: str, **more: Any) -> Table:
    rows: list[str | None] = [*text.removesuffix("\n").split("\n")]
    return Table(
        {"text": texts("text", rows)},
        "book.txt",
        row_numbers=np.arange(1, len(rows) + 1),
        joined_by="\n",
        **more,
    )


# --- documents in pieces


@pytest.mark.parametrize(
    "text",
    [
        CHINESE * 300,
        ENGLISH * 200,
        "字" * 5000,
        "x" * 9001,
        "\n" * 5000,
        "\n\n" + ENGLISH * 90 + "\n\n",
        "a",
    ],
)
def test_the_pieces_of_a_file_are_the_file(text: str) -> None:
    table = documents.document_pieces(lines(text), "text")
    column = table.columns["text"]
    found = [column.text(row) or "" for row in range(len(table))]  # each of them valid UTF-8
    assert "".join(found) == text.removesuffix("\n")
    assert max(len(piece.encode()) for piece in found) <= 2 * documents.PIECE
    assert table.continues is not None
    assert table.continues.tolist() == [True] * (len(table) - 1) + [False]


def test_pieces_are_cut_at_the_ends_of_lines() -> None:
    table = documents.document_pieces(lines(CHINESE * 300), "text")
    column = table.columns["text"]
    assert len(table) > 10
    assert all((column.text(row) or "").endswith("\n") for row in range(len(table) - 1))


def test_a_piece_is_named_by_the_line_it_begins_with() -> None:
    table = documents.document_pieces(
        lines("".join(f"line {number} {ENGLISH}" for number in range(1, 200))), "text"
    )
    column = table.columns["text"]
    for row in range(len(table)):
        number = int((column.text(row) or "").split()[1])
        assert table.where(row) == f"book.txt row {number}"


def test_files_stay_documents_of_their_own() -> None:
    files = np.repeat([0, 1, 2], [3, 1, 2]).astype(np.int32)
    rows: list[str | None] = ["a", "b", "", "c", "d", "e"]
    given = Table(
        {"text": texts("text", rows)},
        "two",
        files=("x", "y", "z"),
        file_numbers=files,
        split=files.astype(np.int8),
        joined_by="\n",
    )
    table = documents.document_pieces(given, "text")
    assert [table.columns["text"].text(row) for row in range(3)] == ["a\nb\n", "c", "d\ne"]
    assert table.split is not None
    assert table.split.tolist() == [0, 1, 2]
    assert table.file_numbers is not None
    assert table.file_numbers.tolist() == [0, 1, 2]


def test_documents_are_cut_without_a_copy_and_empty_ones_keep_their_place() -> None:
    given = Table({"text": texts("text", ["short", "", ENGLISH * 100, None, "end"])}, "rows")
    table = documents.document_pieces(given, "text")
    assert np.shares_memory(table.columns["text"].values, given.columns["text"].values)
    assert table.continues is not None
    ends = np.flatnonzero(~table.continues)
    assert len(ends) == 5
    assert [table.where(int(row)) for row in ends] == [
        f"rows row {number}" for number in range(1, 6)
    ]


def test_the_column_of_the_text_is_found_or_asked_for() -> None:
    two = Table({"title": texts("title", ["a"]), "body": texts("body", ["b"])}, "rows")
    with pytest.raises(DataError, match="title, body") as found:
        documents.text_column(two, None)
    assert "task.column" in found.value.problem.hint
    assert documents.text_column(two, "body") == "body"
    assert (
        documents.text_column(Table({**two.columns, "text": texts("text", ["c"])}, "rows"), None)
        == "text"
    )
    with pytest.raises(DataError, match="no such column"):
        documents.text_column(two, "boddy")
    with pytest.raises(DataError, match="no column holds text"):
        documents.text_column(Table({"n": Column("n", "number", np.zeros(1))}, "rows"), None)


# --- one stream

TOKENS = np.arange(FIRST_TOKEN, FIRST_TOKEN + 97, dtype=np.uint16)
OFFSETS = np.array([0, 30, 30, 41, 70, 80, 97])
CONTINUES = np.array([True, False, True, False, False, False])
SPLITS = {"train": np.array([0, 1, 2]), "validation": np.array([3]), "test": np.array([4, 5])}


def whole(context: int) -> streams.TokenStream:
    return streams.token_stream(Ragged(TOKENS, OFFSETS), SPLITS, CONTINUES, 200, context)


def test_a_stream_ends_documents_and_no_pieces() -> None:
    made = whole(7)
    regions = {
        split: made.values[start:stop].tolist() for split, (start, stop) in made.regions.items()
    }
    first, second, third, rest = (
        TOKENS[low:high].tolist() for low, high in ((0, 30), (30, 41), (41, 70), (70, 97))
    )
    assert regions["train"] == [
        END,
        *first,
        END,
        *second,
    ]  # row 1 is empty and ends its document; row 2 goes on, elsewhere
    assert regions["validation"] == [END, *third, END]
    assert regions["test"] == [END, *rest[:10], END, *rest[10:], END]


def test_a_stream_of_scattered_rows_is_the_same_as_of_rows_in_a_row() -> None:
    rows = np.array([0, 2, 5])
    made = streams.token_stream(Ragged(TOKENS, OFFSETS), {"train": rows}, None, 200, 4)
    expected = [END]
    for row in rows:
        expected += [*TOKENS[OFFSETS[row] : OFFSETS[row + 1]].tolist(), END]
    start, stop = made.regions["train"]
    assert made.values[start:stop].tolist() == expected
    for at in range(start + 1, stop):
        row = int(made.row_of(np.array([at]))[0])
        assert made.values[at] == END or made.values[at] in TOKENS[OFFSETS[row] : OFFSETS[row + 1]]


@pytest.mark.parametrize("context", [2, 5, 7, 64])
def test_windows_ask_every_token_of_a_split_exactly_once(context: int) -> None:
    made = whole(context)
    target = Windows(made.values, context, shift=1, fill=PADDING, ignore=PADDING)
    for split, (start, stop) in made.regions.items():
        asked = target.at(made.windows(split, context)).reshape(-1)
        assert asked[asked != PADDING].tolist() == made.values[start + 1 : stop].tolist()


def test_training_windows_leave_room_to_be_moved() -> None:
    made = whole(3)
    ids, phase = streams.window_starts(made, SPLITS, 3)
    assert phase == 3
    start, stop = made.regions["train"]
    last = int(ids["train"].max()) + phase - 1
    assert (
        last + 3 <= stop - 1
    )  # the target of the last place of the last window is still training text
    assert ids["train"].min() == start


def test_a_large_text_lies_on_the_disk_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    small, pieces = whole(7), documents.document_pieces(lines(CHINESE * 300), "text")
    monkeypatch.setattr("danlu.reading.growing_array.LIMIT", 10)
    monkeypatch.setattr(streams, "_TOGETHER", 13)
    monkeypatch.setattr(documents, "_TOGETHER", 1000)
    large, mapped = whole(7), documents.document_pieces(lines(CHINESE * 300), "text")
    assert np.array_equal(small.values, large.values)
    assert small.regions == large.regions
    assert np.array_equal(pieces.columns["text"].values, mapped.columns["text"].values)
    assert isinstance(large.values.base, np.memmap)


# --- the task


class Preprocessing:
    """What the tasks look at of the real one."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer


def framed(
    module: Any, text: str = CHINESE * 60 + ENGLISH * 40, answering: bool = False, **options: Any
) -> tuple[Any, Examples, Table]:
    config = module.Config(**options)
    table = module.recast(config, lines(text))
    return (*_framed(module, config, table, answering), table)


def _framed(
    module: Any, config: Any, table: Table, answering: bool = False
) -> tuple[Any, Examples]:
    (column,) = table.columns.values()
    tokenizer = tokenizing.fit("characters", column)
    codes, offsets = tokenizer.encode(column)
    task = module.build(config, {})
    task.attach(Preprocessing(tokenizer))
    count = len(table)
    splits = {
        "train": np.arange(count - 2),
        "validation": np.array([count - 2]),
        "test": np.array([count - 1]),
    }
    if answering:
        splits = {"data": np.arange(count)}
    described = {"tokens": InputSpec("tokens", (99,), cardinalities=(tokenizer.size,))}
    return task, task.make_examples(
        {"tokens": Ragged(codes, offsets)}, described, {}, splits, table, answering
    )


def test_the_target_is_the_next_token() -> None:
    task, examples, _ = framed(language_modeling, context=16)
    rows = Rows(examples.inputs, {}, examples.target, placement_for(Train(threads=1)))
    batch = Batches(rows, examples.splits["train"], 8, 0, phase=examples.phase).take(3)
    assert batch.inputs["tokens"].shape == batch.target.shape == (8, 16)
    assert torch.equal(batch.inputs["tokens"][:, 1:], batch.target[:, :-1])
    assert task.output.size == examples.input_specs["tokens"].cardinalities[0]
    assert task.output.per == "token"
    assert examples.input_specs["tokens"].shape == (16,)
    assert (examples.units, examples.unit) == (16, "tokens")


def test_every_epoch_cuts_its_windows_elsewhere() -> None:
    _, examples, _ = framed(language_modeling, context=16)
    rows = Rows(examples.inputs, {}, examples.target, placement_for(Train(threads=1)))
    batches = Batches(rows, examples.splits["train"], 8, 0, phase=examples.phase)
    cuts = {int(batches.indices(epoch * batches.steps_per_epoch)[0]) % 16 for epoch in range(8)}
    assert len(cuts) > 2


def test_a_short_text_is_asked_whole() -> None:
    _, examples, table = framed(language_modeling, ENGLISH * 100, context=4096)
    assert examples.phase == 1
    assert isinstance(examples.target, Windows)
    asked = examples.target.at(examples.splits["train"])
    assert (asked != PADDING).sum() == sum(
        len(table.columns["text"].text(row) or "") for row in range(len(table) - 2)
    )


def test_a_restored_task_describes_itself_alike() -> None:
    for module in (language_modeling, masked_language_modeling, instruction_tuning):
        if module is instruction_tuning:
            continue
        task, _, _ = framed(module, context=16)
        again = module.restore(module.Config(context=16), json.loads(json.dumps(task.state())))
        assert again.describe() == task.describe()
        assert again.output == task.output


def test_the_baseline_is_the_entropy_of_single_tokens() -> None:
    task, examples, _ = framed(language_modeling, "ab" * 30_000, context=16)
    scores = task.baseline(examples, "validation")
    # a and b, each half of the time, and the rare end of a document that no validation token is
    assert scores["loss"] == pytest.approx(np.log(2), abs=1e-3)
    assert scores["bits_per_byte"] == pytest.approx(1, abs=2e-3)


def test_a_row_to_be_answered_ends_with_its_last_tokens() -> None:
    task, examples, _ = framed(language_modeling, "hello", answering=True, context=4)
    found = examples.inputs["tokens"]
    assert isinstance(found, Ragged)
    assert found.row(0).tolist()[0] == END
    assert task.tokenizer.decode(found.row(0)[1:]) == "llo"
    assert examples.target is None


# --- losses and metrics of tokens


def asked_batch(share: float, generator: torch.Generator) -> tuple[torch.Tensor, Batch]:
    logits = torch.randn(3, 11, 29, generator=generator) * 3
    target = torch.randint(0, 29, (3, 11), generator=generator)
    target[torch.rand(3, 11, generator=generator) > share] = IGNORED
    return logits, Batch({}, target, torch.arange(3))


@pytest.mark.parametrize("share", [1.1, 0.15])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_tokens_is_that_of_torch(share: float, smoothing: float) -> None:
    logits, batch = asked_batch(share, torch.Generator().manual_seed(4))
    mine, other = (logits.clone().requires_grad_(True) for _ in range(2))
    total, count = build_loss(LossConfig(label_smoothing=smoothing), None)(mine, batch)
    (total / count).backward()
    expected = torch.nn.functional.cross_entropy(
        other.flatten(0, 1), batch.target.flatten(), ignore_index=IGNORED, label_smoothing=smoothing
    )
    expected.backward()
    assert mine.grad is not None
    assert other.grad is not None
    # sums of at most 33 float32 numbers in another order
    assert float(total.detach() / count) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert torch.allclose(mine.grad, other.grad, atol=1e-7)


def test_the_gradient_of_the_loss_of_tokens_is_taken_once() -> None:
    logits, batch = asked_batch(1.1, torch.Generator().manual_seed(4))
    total, _ = build_loss(LossConfig(), None)(logits.requires_grad_(True), batch)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        total.backward()


class ThreeCodes(language_modeling.LanguageModeling):
    """A task with three codes of known length."""

    @property
    def token_bytes(self) -> list[int]:
        return [0, 1, 3]


def test_bits_per_byte_count_the_bytes_that_tokens_write() -> None:
    metric = registry.take("metrics", "bits_per_byte").build(
        registry.config("metrics", "bits_per_byte")(), ThreeCodes(language_modeling.Config())
    )
    target = torch.tensor([[1, 2, 0, IGNORED]])
    total = metric.count(torch.zeros(1, 4, 3), Batch({}, target, torch.arange(1)))
    assert int(total["bytes"]) == 4
    assert metric.score(total) == pytest.approx(3 * np.log2(3) / 4)


def test_perplexity_of_no_knowledge_is_the_size_of_the_vocabulary() -> None:
    metric = registry.take("metrics", "perplexity").build(
        registry.config("metrics", "perplexity")(), None
    )
    _, batch = asked_batch(0.5, torch.Generator().manual_seed(1))
    assert metric.score(metric.count(torch.zeros(3, 11, 29), batch)) == pytest.approx(29)


# --- masked tokens


def test_masking_hides_the_share_that_was_asked_for_in_the_promised_ways() -> None:
    task, examples, _ = framed(masked_language_modeling, CHINESE * 600, context=64)
    rows = Rows(examples.inputs, {}, examples.target, placement_for(Train(threads=1)))
    plain = rows.gather(torch.from_numpy(examples.splits["train"]))
    hidden = task.corrupt(plain, 3)
    before, after, target = plain.inputs["tokens"], hidden.inputs["tokens"], hidden.target
    asked = target != IGNORED
    assert torch.equal(target[asked], before[asked])
    assert torch.equal(after[~asked], before[~asked])
    ordinary = before >= FIRST_TOKEN
    assert not bool((asked & ~ordinary).any())
    count = int(asked.sum())
    # some 18,000 tokens: the standard deviation of a share of them is at most 0.003, of a share of
    # those asked 0.008; four of them
    assert count / int(ordinary.sum()) == pytest.approx(0.15, abs=0.012)
    assert int((after[asked] == MASK).sum()) / count == pytest.approx(0.8, abs=0.032)
    same = int((after[asked] == before[asked]).sum()) / count
    assert same == pytest.approx(0.1 + 0.1 / (task.size - FIRST_TOKEN), abs=0.03)


def test_masking_is_a_function_of_seed_and_window_and_not_of_the_batch() -> None:
    task, examples, _ = framed(masked_language_modeling, CHINESE * 60, context=32)
    rows = Rows(examples.inputs, {}, examples.target, placement_for(Train(threads=1)))
    ids = torch.from_numpy(examples.splits["train"])
    together = task.corrupt(rows.gather(ids), 5)
    alone = [task.corrupt(rows.gather(ids[n : n + 1]), 5) for n in range(len(ids))]
    assert torch.equal(together.target, torch.cat([each.target for each in alone]))
    assert torch.equal(
        together.inputs["tokens"], torch.cat([each.inputs["tokens"] for each in alone])
    )
    assert not torch.equal(together.target, task.corrupt(rows.gather(ids), 6).target)


def test_a_window_with_any_token_asks_one() -> None:
    task, examples, _ = framed(masked_language_modeling, CHINESE * 60, context=2)
    task.share = 1e-9
    rows = Rows(examples.inputs, {}, examples.target, placement_for(Train(threads=1)))
    batch = task.corrupt(rows.gather(torch.from_numpy(examples.splits["train"])), 1)
    assert (batch.target != IGNORED).sum(1).min() == 1


def test_a_mask_in_a_text_to_be_answered_is_the_mask() -> None:
    task, examples, _ = framed(masked_language_modeling, "ab[MASK]c", answering=True, context=16)
    found = examples.inputs["tokens"]
    assert isinstance(found, Ragged)
    row = found.row(0).tolist()
    assert row[3] == MASK
    assert task.tokenizer.decode([row[1], row[2], row[4]]) == "abc"


# --- conversations


def talks(**columns: list[str | None]) -> Table:
    return Table({name: texts(name, rows) for name, rows in columns.items()}, "talk.jsonl")


ASKED: list[str | None] = ["1+1?", "中国的首都是哪里？", "Say a\x1eb", "one more", "last"]
ANSWERED: list[str | None] = ["2", "北京。", "a b", "and one", "it is"]


def instructed(answering: bool = False, **options: Any) -> tuple[Any, Examples]:
    config = instruction_tuning.Config(**options)
    columns = {"prompt": ASKED} if answering else {"prompt": ASKED, "response": ANSWERED}
    return _framed(
        instruction_tuning, config, instruction_tuning.recast(config, talks(**columns)), answering
    )


def test_only_the_answers_are_asked() -> None:
    task, examples = instructed()
    target = examples.target
    assert isinstance(target, Ragged)
    for row, answer in enumerate(ANSWERED):
        asked = target.row(row)
        asked = asked[asked != IGNORED]
        assert asked[-1] == END
        assert task.tokenizer.decode(asked[:-1]) == answer


def test_a_prompt_is_written_as_in_training() -> None:
    task, examples = instructed()
    inputs, target = examples.inputs["tokens"], examples.target
    assert isinstance(inputs, Ragged)
    assert isinstance(target, Ragged)
    for row in (0, 1):
        first = int((target.row(row) != IGNORED).argmax())
        assert task.prompt([("user", ASKED[row])]) == inputs.row(row)[: first + 1].tolist()
    assert inputs.row(0)[0] == BEGINNING
    assert task.tokenizer.decode(inputs.row(0)).startswith("user\n1+1?")


def test_a_conversation_that_is_too_long_keeps_its_answer() -> None:
    task, examples = instructed(context=16)
    target = examples.target
    assert isinstance(target, Ragged)
    assert target.sizes.max() <= 16
    asked = [
        task.tokenizer.decode(row[row != IGNORED])
        for row in (target.row(number) for number in range(len(ANSWERED)))
    ]
    assert asked == ANSWERED
    assert examples.facts


def test_messages_are_read_and_wrong_ones_named() -> None:
    said = json.dumps(
        [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "yo"},
        ]
    )
    config = instruction_tuning.Config()
    table = instruction_tuning.recast(config, talks(messages=[said] * 5))
    task, examples = _framed(instruction_tuning, config, table)
    assert isinstance(examples.target, Ragged)
    row = examples.target.row(0)
    assert task.tokenizer.decode(row[row != IGNORED]) == "yo"
    with pytest.raises(DataError, match="'user2' is no role") as found:
        instruction_tuning.recast(config, talks(messages=[said, said.replace('"user"', '"user2"')]))
    assert "row 2" in found.value.problem.where
    with pytest.raises(DataError, match="no conversation"):
        instruction_tuning.recast(config, talks(messages=["hello"]))
    with pytest.raises(DataError, match="a turn of user has no text"):
        instruction_tuning.recast(config, talks(messages=['[{"role": "user", "content": null}]']))


def test_conversations_are_read_from_json_lines_as_lists_of_turns(tmp_path: Path) -> None:
    lines = []
    for number in range(20):
        turns = [
            {"role": "user", "content": f"what follows {number}"},
            {"role": "assistant", "content": f"它是 {number + 1}"},
        ]
        lines.append(json.dumps({"messages": turns}))
    (tmp_path / "talks.jsonl").write_text("\n".join(lines) + "\n")
    recipe = read_recipe(
        {
            "task": {"name": "instruction_tuning", "context": 32},
            "data": {"source": {"name": "jsonl", "path": str(tmp_path / "talks.jsonl")}},
            "model": {"name": "gpt", "size": "tiny", "width": 16},
        }
    )
    data = prepare(recipe)
    target = data.examples.target
    assert isinstance(target, Ragged)
    row = target.row(int(data.splits["train"][0]))
    assert data.task.tokenizer.decode(row[row != IGNORED]).startswith("它是 ")


def test_a_missing_answer_is_named_by_its_row() -> None:
    with pytest.raises(DataError, match="missing") as found:
        instruction_tuning.recast(
            instruction_tuning.Config(), talks(prompt=["a", "b"], response=["c", None])
        )
    assert "row 2" in found.value.problem.where


def test_a_prompt_to_be_answered_opens_the_turn_of_the_assistant() -> None:
    task, examples = instructed(answering=True, system="be kind")
    found = examples.inputs["tokens"]
    assert isinstance(found, Ragged)
    assert found.row(0).tolist() == task.prompt([("system", "be kind"), ("user", "1+1?")])


def test_the_defaults_of_the_three_tasks_make_a_whole_recipe(tmp_path: Path) -> None:
    from danlu import read_recipe

    for name in ("language_modeling", "masked_language_modeling", "instruction_tuning"):
        recipe = read_recipe(
            {
                "task": name,
                "data": {"source": {"name": "text", "path": str(tmp_path / "a.txt")}},
                "model": "gpt",
            }
        )
        assert recipe.loss.name == "cross_entropy"
        assert recipe.data.transforms["text"][0].name == "tokenize"
        adapted = registry.task_facts(name).adapt(recipe.task.options, recipe.data)
        assert getattr(adapted.transforms["text"][0].options, "max_length") is None  # noqa: B009
