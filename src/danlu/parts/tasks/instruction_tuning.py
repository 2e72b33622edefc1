"""Instruction tuning: a language model learns to answer, with the loss on the answers alone.

A row is a prompt and its response (two columns), or a whole conversation (a column of messages:
JSON [{"role": ..., "content": ...}]). It becomes a sequence of turns

    <s>ROLE\\n CONTENT </s>          ROLE is system, user or assistant

where <s> and </s> are tokens that no text contains. The model learns to predict the tokens of the
assistant's turns, their end included, and nothing else. The template is kept in the artifact:
`danlu chat` uses the same. Start from a pretrained model: model: {name: gpt, weights:
PATH-OF-ITS-ARTIFACT}."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.data import documents
from danlu.data.examples import Examples, Ragged, take_examples
from danlu.errors import DataError, did_you_mean
from danlu.parts.tasks._base import (
    Answer,
    Converses,
    DrawsSamples,
    HasReferences,
    PreparedInputs,
    RewritesTexts,
    RunNetwork,
    WritesTokenByToken,
)
from danlu.parts.tasks._numpy_generation import greedy, last_logits, pad_rows
from danlu.parts.tasks._token_stream import RunningText, only_text_input, unigram_cross_entropy
from danlu.recipe import Data, Options
from danlu.terms import BEGINNING, END, IGNORED, PADDING, Column, InputSpec, Sample, Table

if TYPE_CHECKING:
    from torch import nn

    from danlu.layers.generation.sampling import Sampling
    from danlu.terms import Batch

ASKS = "tokens"
TARGETS = (0, 0)
DEFAULTS = {
    "model": "gpt",
    "loss": "cross_entropy",
    "metrics": ["perplexity", "accuracy"],
    "data.split": {"name": "random", "validation": 0.1, "test": 0.1},
    "data.transforms": {"text": [{"name": "tokenize", "kind": "bpe"}]},
}
ROLES = ("system", "user", "assistant")
_TURN = "\x1e"  # U+001E, the record separator, before each turn in the column that `recast` makes
_SHOWN = 2  # prompts answered at each evaluation

Message = tuple[str, str]  # role, content


class Config(Options):
    """The columns, and the length of a conversation."""

    prompt: str = Field("prompt", description="The column of prompts.")
    response: str = Field("response", description="The column of responses.")
    messages: str = Field(
        "messages",
        description="The column of whole conversations as JSON; where it exists, it is read "
        "instead.",
    )
    system: str | None = Field(
        None,
        description="The system's turn that every conversation begins with; null: none.",
    )
    context: int = Field(
        512,
        ge=8,
        le=1_048_576,
        description="Tokens of a conversation; longer ones lose their oldest turns.",
    )
    answer_tokens: int = Field(
        200, ge=1, le=100_000, description="Most tokens of an answer to a row of predict."
    )


# --- rows to conversations


def adapt(config: Config, data: Data) -> Data:
    """The data section with texts tokenized whole."""
    return documents.without_cutting(data)


def recast(config: Config, table: Table) -> Table:
    """One text column, named like the prompt's, with a whole conversation per row. Without
    responses, the prompts to be answered.

    DataError that names the row where a text is missing or is no conversation."""
    if config.messages in table.columns:
        column = table.columns[config.messages]
        talks = [_messages(column.python_value(row), table.where(row)) for row in range(len(table))]
    else:
        prompts = _strings(table, config.prompt)
        questions = [
            [("user", text)] if _TURN not in text else list(_turns(text)) for text in prompts
        ]
        answers = _strings(table, config.response) if config.response in table.columns else None
        talks = (
            questions
            if answers is None
            else [
                [*turns, ("assistant", text)]
                for turns, text in zip(questions, answers, strict=True)
            ]
        )
    if config.system:
        talks = [
            talk if talk[:1] and talk[0][0] == "system" else [("system", config.system), *talk]
            for talk in talks
        ]
    data = [_written(talk).encode() for talk in talks]
    offsets = np.cumsum([0, *map(len, data)]).astype(np.int64)
    values = np.frombuffer(bytearray().join(data), dtype=np.uint8)
    column = Column(
        config.prompt, "text", values, offsets=offsets, reason="text: one conversation a row"
    )
    return replace(table, columns={config.prompt: column}, joined_by="", continues=None)


def _strings(table: Table, name: str) -> list[str]:
    if name not in table.columns:
        hint = did_you_mean(name, table.columns) or "say which with task.prompt and task.response"
        raise DataError(
            f"there is no column {name}; it has {', '.join(table.columns)}.",
            where=table.origin,
            hint=hint,
        )
    column = table.columns[name]
    if column.kind not in ("text", "category"):
        hint = f"set data.columns.{name}.kind to text"
        raise DataError(
            f"the column {name} holds {column.kind}, not text.", where=table.origin, hint=hint
        )
    lost = np.flatnonzero(column.is_missing())
    if len(lost):
        where = f"{table.where(int(lost[0]))}, column {name}"
        raise DataError(
            f"the text is missing ({len(lost):,} rows in all).",
            where=where,
            hint="mend or leave out these rows",
        )
    return [str(column.python_value(row)) for row in range(len(column))]


def _messages(cell: object, where: str) -> list[Message]:
    """The turns of a conversation in JSON. DataError."""
    try:
        messages = [(str(turn["role"]), turn["content"]) for turn in json.loads(str(cell))]
    except (ValueError, TypeError, KeyError, RecursionError):
        messages = []
    odd = [role for role, _ in messages if role not in ROLES]
    unsaid = [role for role, content in messages if not isinstance(content, str)]
    if not messages or odd or unsaid:
        what = (
            f"{odd[0]!r} is no role"
            if odd
            else f"a turn of {unsaid[0]} has no text"
            if unsaid
            else "this is no conversation"
        )
        raise DataError(
            f'{what}; a conversation is [{{"role": ..., "content": ...}}, ...] with the roles '
            f"{', '.join(ROLES)}.",
            where=where,
        )
    return messages


def _written(talk: Sequence[Message]) -> str:
    """Turns as one text, which `_turns` reads."""
    plain = [(role, content.replace(_TURN, " ")) for role, content in talk]
    return "".join(f"{_TURN}{role}\n{content}" for role, content in plain)


def _turns(text: str) -> Iterator[Message]:
    first, *rest = text.split(_TURN)
    if first or not rest:
        yield "user", first
    for turn in rest:
        role, _, content = turn.partition("\n")
        yield role, content


# --- the task


class InstructionTuning(
    RunningText, Converses, DrawsSamples, HasReferences, RewritesTexts, WritesTokenByToken
):
    """The template of a conversation, and how the model answers."""

    ahead = 1
    usage = "chat {}"

    def __init__(
        self, config: Config, size: int = 0, counts: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(config.context, size, counts)
        self.config = config
        self.column = config.prompt
        self.answer_column = config.prompt  # the column that `recast` makes holds the answers too
        self.system = config.system
        self._shown: list[list[int]] = []  # prompts of the validation split

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task, and the template, for readers."""
        template = {
            "turn": "<s>{role}\n{content}</s>",
            "roles": list(ROLES),
            "system": self.config.system,
        }
        return {**super().state(), "template": template}

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: Mapping[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """Conversations, whose targets are the assistant's tokens."""
        name, _ = only_text_input(arrays, specs, table)
        self._set_vocabulary(specs[name].cardinalities[0])
        input_specs = {"tokens": replace(specs[name], shape=(self.context,))}
        column = table.columns[self.column]
        talks = [list(_turns(column.text(row) or "")) for row in range(len(table))]
        if answering:
            prompts = [
                self._last_tokens(self.open_assistant_turn(turns)) for turns in self._encoded(talks)
            ]
            return Examples(
                {"tokens": _ragged(prompts, PADDING)},
                input_specs,
                None,
                {"data": np.arange(len(prompts))},
            )
        rows = [self._answer_mask(turns) for turns in self._encoded(talks)]
        self._refuse_unanswered(rows, table, splits)
        long = sum(len(codes) > self.context + 1 for codes, _ in rows)
        rows = [self._cut_to_context(codes, is_answer) for codes, is_answer in rows]
        inputs = _ragged([codes[:-1] for codes, _ in rows], PADDING)
        target = _ragged(
            [
                [code if ask else IGNORED for code, ask in zip(codes[1:], is_answer[1:])]
                for codes, is_answer in rows
            ],
            IGNORED,
        )
        if "train" in splits:
            self.counts = {split: int(inputs.sizes[which].sum()) for split, which in splits.items()}
        shown = splits.get("validation", np.zeros(0, dtype=np.int64))[:_SHOWN]
        self._shown = [_question(inputs.row(row), target.row(row)) for row in shown.tolist()]
        facts = (
            [
                f"{long:,} conversations are longer than task.context ({self.context:,} tokens) "
                "and are cut."
            ]
            if long
            else []
        )
        mean = max(1, round(float(inputs.sizes.mean()))) if len(rows) else 0
        return Examples(
            {"tokens": inputs},
            input_specs,
            target,
            {split: np.asarray(which) for split, which in splits.items()},
            units=mean,
            unit="tokens",
            facts=facts,
        )

    def open_assistant_turn(self, turns: Sequence[tuple[str, list[int]]]) -> list[int]:
        """The tokens of a conversation and of the beginning of the assistant's turn."""
        codes = [code for role, content in turns for code in [*self._head(role), *content, END]]
        return [*codes, *self._head("assistant")]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens that ask for the next turn of the assistant after messages (role, content)."""
        (turns,) = self._encoded([list(messages)])
        return self.open_assistant_turn(turns)

    def _head(self, role: str) -> list[int]:
        codes, _ = self._tokenizer().encode([f"{role}\n"])
        return [BEGINNING, *codes.tolist()]

    def _encoded(self, talks: Sequence[Sequence[Message]]) -> list[list[tuple[str, list[int]]]]:
        """Conversations with tokens in place of texts; all texts are encoded at once."""
        codes, offsets = self._tokenizer().encode(
            [content for talk in talks for _, content in talk]
        )
        encoded = iter([codes[low:high].tolist() for low, high in pairwise(offsets.tolist())])
        return [[(role, next(encoded)) for role, _ in talk] for talk in talks]

    def _answer_mask(self, turns: Sequence[tuple[str, list[int]]]) -> tuple[list[int], list[bool]]:
        """(the tokens of a conversation, whether each is a target)."""
        heads = {role: self._head(role) for role in {role for role, _ in turns}}
        codes: list[int] = []
        is_answer: list[bool] = []
        for role, content in turns:
            codes += [*heads[role], *content, END]
            is_answer += [False] * len(heads[role]) + [role == "assistant"] * (len(content) + 1)
        return codes, is_answer

    def _refuse_unanswered(
        self,
        rows: Sequence[tuple[list[int], list[bool]]],
        table: Table,
        splits: Mapping[str, np.ndarray],
    ) -> None:
        for row in np.concatenate([np.zeros(0, dtype=np.int64), *splits.values()]).tolist():
            if not any(rows[row][1]):
                hint = f"name the column of answers as task.response (it is {self.config.response})"
                raise DataError(
                    "the conversation has no turn of the assistant to learn from.",
                    where=table.where(row),
                    hint=hint,
                )

    def _cut_to_context(
        self, codes: list[int], is_answer: list[bool]
    ) -> tuple[list[int], list[bool]]:
        """At most context + 1 tokens: the oldest are cut off, but not the beginning of the last
        answer."""
        over = len(codes) - (self.context + 1)
        if over <= 0:
            return codes, is_answer
        last = max(
            index for index in range(1, len(codes)) if is_answer[index] and not is_answer[index - 1]
        )
        start = min(over, max(last - 1, 0))
        return codes[start : start + self.context + 1], is_answer[start : start + self.context + 1]

    def _last_tokens(self, codes: list[int]) -> list[int]:
        return codes[-self.context :]

    def references(self, batch: Batch) -> list[str]:
        """The first answer of each conversation."""
        return [self._tokenizer().decode(_first_answer(row)) for row in batch.target.tolist()]

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """{"prediction": the likeliest answer} per row: to the first question of a conversation
        with answers, else to the last."""
        from danlu.layers.generation.sampling import Sampling

        rows = batch.inputs["tokens"].cpu().numpy()
        targets = [None] * len(rows) if batch.target is None else batch.target.cpu().numpy()
        prompts = [_question(row, target) for row, target in zip(rows, targets, strict=True)]
        texts = self._answers(
            module, prompts, Sampling(temperature=0), 0, self.config.answer_tokens
        )
        return [{"prediction": text} for text in texts]

    def write(self, run: RunNetwork, inputs: Mapping[str, np.ndarray]) -> list[Answer]:
        """The answers, as `respond` gives them, of a network that `run` runs."""
        prompts = [_question(row, None) for row in inputs["tokens"]]

        def following(rows: list[list[int]]) -> np.ndarray:
            return last_logits(run({"tokens": pad_rows(rows)})["logits"], rows)

        return [
            {"prediction": self._tokenizer().decode(codes)}
            for codes in greedy(following, prompts, self.context, self.config.answer_tokens)
        ]

    def samples(self, module: nn.Module, seed: int) -> tuple[Sample, ...]:
        """Answers to the first questions of the validation split."""
        from danlu.layers.generation.sampling import Sampling

        texts = self._answers(
            module, self._shown, Sampling(temperature=0), seed, min(self.config.answer_tokens, 60)
        )
        questions = [self._tokenizer().decode(prompt) for prompt in self._shown]
        return tuple(
            Sample(f"answer {number}", f"{question}\n-> {text}")
            for number, (question, text) in enumerate(zip(questions, texts), 1)
        )

    def rewrite(self, module: nn.Module, batch: Batch, column: Column) -> list[str | None]:
        """The conversations of the column with the model's likeliest answer in each turn of the
        assistant, given the turns before it as rewritten; None where an answer is empty or was cut
        off at answer_tokens."""
        talks: list[list[Message] | None] = [
            list(_turns(column.text(row) or "")) for row in batch.rows.tolist()
        ]
        for turn in range(max((len(talk) for talk in talks if talk), default=0)):
            numbers = [
                number
                for number, talk in enumerate(talks)
                if talk and turn < len(talk) and talk[turn][0] == "assistant"
            ]
            before = self._encoded([(talks[number] or [])[:turn] for number in numbers])
            for number, answer in zip(
                numbers,
                self._ended(
                    module, [self._last_tokens(self.open_assistant_turn(turns)) for turns in before]
                ),
                strict=True,
            ):
                talk = talks[number] or []
                talks[number] = (
                    None
                    if answer is None
                    else [*talk[:turn], ("assistant", answer), *talk[turn + 1 :]]
                )
        return [None if talk is None else _written(talk) for talk in talks]

    def _ended(self, module: nn.Module, prompts: list[list[int]]) -> list[str | None]:
        """The likeliest answer to each prompt, None where it is empty or did not end."""
        from danlu.layers.generation.sampling import Sampling

        answers = self._continued(
            module, prompts, Sampling(temperature=0), 0, self.config.answer_tokens
        )
        texts = [self._tokenizer().decode(codes) for codes in answers]
        return [
            text if codes[-1:] == [END] and text.strip() else None
            for codes, text in zip(answers, texts, strict=True)
        ]

    def _answers(
        self, module: nn.Module, prompts: list[list[int]], sampling: Sampling, seed: int, most: int
    ) -> list[str]:
        return [
            self._tokenizer().decode(codes)
            for codes in self._continued(module, prompts, sampling, seed, most)
        ]

    def _continued(
        self, module: nn.Module, prompts: list[list[int]], sampling: Sampling, seed: int, most: int
    ) -> list[list[int]]:
        """The tokens generated after each prompt, END included."""
        from danlu.layers.generation.autoregressive import Continuation

        going = Continuation(module, prompts, self.context, sampling, seed)
        for _ in range(most):
            if not going.step():
                break
        return [codes[len(prompt) :] for codes, prompt in zip(going.codes, prompts, strict=True)]

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """Scores of predicting each token by its frequency in the answers of the training rows
        alone."""
        assert isinstance(examples.target, Ragged)
        train, scored = (
            take_examples(examples.target, examples.splits[name]).values
            for name in ("train", split)
        )
        train, scored = train[train != IGNORED], scored[scored != IGNORED]
        if not len(scored):
            return {}
        nats = unigram_cross_entropy(train, scored, self.size)
        return {"loss": nats, "perplexity": float(np.exp(nats))}

    def describe(self) -> str:
        """'instruction tuning: conversations of 12,345 tokens in all to train, up to 512 each'."""
        count = self.counts.get("train", 0)
        return (
            f"instruction tuning: conversations of {count:,} tokens in all to train, up to "
            f"{self.context:,} each"
        )


def _ragged(rows: Sequence[Sequence[int]], fill: int) -> Ragged:
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Ragged(np.array([code for row in rows for code in row], dtype=np.int32), offsets, fill)


def _question(row: np.ndarray, target: np.ndarray | None) -> list[int]:
    """The tokens of a conversation up to the first answer; all of them where there is none."""
    if target is not None and (target != IGNORED).any():
        return row[: int((target != IGNORED).argmax()) + 1].tolist()
    return row[row != PADDING].tolist()


def _first_answer(target: Sequence[int]) -> list[int]:
    codes: list[int] = []
    for code in target:
        if code == IGNORED and codes:
            break
        if code not in (IGNORED, END):
            codes.append(code)
    return codes


def build(config: Config, targets: Mapping[str, Column]) -> InstructionTuning:
    """The task; its vocabulary is set by the first call of make_examples."""
    return InstructionTuning(config)


def restore(config: Config, state: Mapping[str, Any]) -> InstructionTuning:
    """The task whose `state()` this is."""
    return InstructionTuning(
        config,
        int(state["size"]),
        {str(split): int(count) for split, count in state["counts"].items()},
    )
