"""Token classification: a tag for each word, such as names, phrases, parts of speech; and spans.

The target is a sequence with one tag for every word of the input. Tags such as B-NP, I-NP, O (BIO),
with E and S (BIOES), or I alone (IO) mark spans of words; the scheme follows from the tags. Other
tags label single words. Classes are the tags of the training rows. An answer holds the tag of each
word and the spans: the number of their first word and of the one after their last, their type, and
their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu.data.examples import Examples, Ragged, take_examples
from danlu.errors import DataError, did_you_mean
from danlu.parts.tasks._base import (
    Answer,
    AnswersFromArrays,
    AnswersOutputs,
    CompletesAnswers,
    CutsExamples,
    PreparedInputs,
    Responds,
    Task,
    WeighsClasses,
)
from danlu.parts.tasks._spans import SpanFinder, complete_tag_set, tagging_scheme
from danlu.parts.tasks._targets import comma_list, percent_text, refuse_empty, refuse_missing
from danlu.reading.word_lists import word_pattern
from danlu.recipe import Options
from danlu.terms import IGNORED, UNKNOWN, Column, InputSpec, OutputSpec, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.terms import Batch

ASKS = "tokens"
TARGETS = (1, 1)
DEFAULTS = {"model": "rnn", "loss": "cross_entropy", "metrics": ["span_f1", "accuracy"]}


class Config(Options):
    """Options of token_classification."""

    unseen: Literal["error", "ignore"] = Field(
        "error",
        description="Whether a tag that no training row has is an error, or its words are left "
        "out of "
        "all scores.",
    )


class TokenClassification(
    WeighsClasses,
    CutsExamples,
    AnswersOutputs,
    Responds,
    CompletesAnswers,
    AnswersFromArrays,
    Task,
):
    """The tags of the target, and how outputs (N, T, tags) become tags and spans."""

    baseline_description = "each word answered with its most frequent tag in the training rows"

    def __init__(
        self,
        target: str,
        classes: Sequence[str],
        class_counts: Sequence[int],
        unseen: str = "error",
    ) -> None:
        self.target_names = (target,)
        self.tags = tuple(classes)
        self.classes = self.tags
        self.class_counts = tuple(class_counts)  # of the training words
        self.output = OutputSpec(len(self.tags), self.tags, per="token")
        self.scheme = tagging_scheme(self.tags)
        # Spans, not the loss: a tagger that overfits grows too sure of its few mistakes, and its
        # loss rises while it still finds more of the spans.
        self.score_order = (
            ("accuracy", "higher") if self.scheme == "none" else ("span_f1", "higher")
        )
        self.finder = SpanFinder(self.tags)
        self.unseen = unseen

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {
            "target": self.target_names[0],
            "classes": list(self.tags),
            "class_counts": list(self.class_counts),
        }

    def class_weights(self, chosen: str | Mapping[str, float] | None) -> list[float] | None:
        """One weight per tag: "balanced" (words / (tags * words of the tag)), by name (1 for
        others), or None."""
        if chosen is None:
            return None
        if isinstance(chosen, str):
            return [
                sum(self.class_counts) / (len(self.tags) * max(count, 1))
                for count in self.class_counts
            ]
        for name in chosen:
            if name not in self.tags:
                raise DataError(
                    f"{name!r} is not a tag of {self.target_names[0]}; its tags are "
                    f"{comma_list(self.tags)}.",
                    hint=did_you_mean(name, self.tags),
                )
        return [float(chosen.get(name, 1.0)) for name in self.tags]

    def encode(self, targets: Mapping[str, Column]) -> Ragged:
        """The number of each word's tag, int64; IGNORED where a word has none. DataError for a tag
        that no training row has, unless `unseen` is "ignore"."""
        column = targets[self.target_names[0]]
        refuse_missing(column)
        assert column.offsets is not None
        number_of = {name: number for number, name in enumerate(self.tags)}
        table = np.array(
            [*(number_of.get(name, -1) for name in column.categories), IGNORED], dtype=np.int64
        )
        numbers = table[np.asarray(column.values)]
        strange = np.unique(np.asarray(column.values)[numbers == -1])
        if len(strange) and self.unseen == "ignore":
            numbers[numbers == -1] = IGNORED
        elif len(strange):
            raise DataError(
                f"the target {column.name} holds "
                f"{comma_list([column.categories[code] for code in strange])} at "
                f"{int((numbers == -1).sum()):,} words, which no training row has; the tags are "
                f"{comma_list(self.tags)}.",
                hint="mend those rows, move some of them to the training rows, or set "
                "task.unseen to ignore",
            )
        return Ragged(numbers, np.asarray(column.offsets, dtype=np.int64), fill=IGNORED)

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: dict[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """One example per row. Its inputs of words, and its tags, must have the same length.
        DataError."""
        sizes = {
            f"the input {name}": array.sizes
            for name, array in arrays.items()
            if isinstance(array, Ragged)
        }
        if not sizes:
            raise DataError(
                "token_classification needs words, and no input is a sequence of them.",
                where=table.origin,
                hint="give a column of words, or choose task: classification",
            )
        target = self._tags(targets, splits) if targets else None
        if target is not None:
            sizes[f"the target {self.target_names[0]}"] = target.sizes
        _refuse_unequal(sizes, np.concatenate(list(splits.values())), table)
        return Examples(
            dict(arrays), dict(specs), target, splits, facts=[] if answering else self._facts()
        )

    def _tags(self, targets: Mapping[str, Column], splits: Mapping[str, np.ndarray]) -> Ragged:
        """The tags of the rows in some split; other rows have none."""
        column = targets[self.target_names[0]]
        rows = np.sort(np.concatenate(list(splits.values())))
        if len(rows) == len(column):
            return self.encode(targets)
        some = self.encode({column.name: column.take(rows)})
        sizes = np.zeros(len(column), dtype=np.int64)
        sizes[rows] = some.sizes
        return Ragged(
            some.values, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), fill=IGNORED
        )

    def _facts(self) -> list[str]:
        if self.scheme == "none":
            return [f"the tags of {self.target_names[0]} mark no spans, so span_f1 has no value."]
        return [
            f"the tags of {self.target_names[0]} mark spans in the scheme {self.scheme.upper()}."
        ]

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """The answers of a batch, each as long as its row."""
        from danlu.layers.recurrent.sequence_reader import lengths_of

        name = next(name for name in batch.inputs if name.partition(".")[0] in ("tokens", "frames"))
        return self.answers(
            module(batch.inputs).float().cpu(), lengths_of(name, batch.inputs).cpu()
        )

    def answers(self, outputs: Tensor, lengths: Tensor | None = None) -> list[Answer]:
        """{"prediction": tags, "spans": [{"start", "stop", "type"}]} per row; each of `lengths`
        (N,) words, or of all T."""
        rows, places = outputs.shape[:2]
        best = (
            outputs.argmax(dim=2).cpu().numpy() if places else np.zeros((rows, 0), dtype=np.int64)
        )
        return self._in_tags(best, [places] * rows if lengths is None else lengths.tolist())

    keeps_rows = True

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"probabilities": float64 (N, T, tags)}."""
        return {"probabilities": outputs.double().softmax(dim=2)}

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `respond` gives them; `beside` holds NAME_sizes, the words of each
        row."""
        sizes = next(array for name, array in beside.items() if name.endswith("_sizes"))
        return self._in_tags(arrays["probabilities"].argmax(axis=2), sizes.tolist())

    def _in_tags(self, best: np.ndarray, sizes: list[int]) -> list[Answer]:
        is_word = np.arange(best.shape[1]) < np.array(sizes, dtype=np.int64)[:, None]
        spans: list[list[Answer]] = [[] for _ in sizes]
        for row, start, stop, kind in self.finder.listed(best, is_word):
            spans[row].append({"start": start, "stop": stop, "type": self.finder.types[kind]})
        tags = [
            [self.tags[tag] for tag in row[:size]]
            for row, size in zip(best.tolist(), sizes, strict=True)
        ]
        if self.scheme == "none":
            return [{"prediction": row} for row in tags]
        return [
            {"prediction": row, "spans": row_spans}
            for row, row_spans in zip(tags, spans, strict=True)
        ]

    def complete_answers(
        self, answers: list[Answer], table: Table, examples: Sequence[int]
    ) -> list[Answer]:
        """The answers with their words, and each span with its text; in a text also with its first
        and last character."""
        column = next(
            (
                candidate
                for candidate in table.columns.values()
                if candidate.kind in ("sequence", "text")
            ),
            None,
        )
        if column is None:
            return answers
        return [
            _with_words(answer, column, row) for answer, row in zip(answers, examples, strict=True)
        ]

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """Scores of answering each word with its most frequent tag in the training rows, and new
        words with the most frequent tag of all."""
        import torch

        assert isinstance(examples.target, Ragged)
        name = next(name for name, field in examples.inputs.items() if isinstance(field, Ragged))
        words = examples.inputs[name]
        assert isinstance(words, Ragged)
        train_tags, scored_tags = (
            take_examples(examples.target, examples.splits[each]) for each in ("train", split)
        )
        train, scored = (
            _first_codes(take_examples(words, examples.splits[each])) for each in ("train", split)
        )
        counts = np.zeros(
            (
                max(int(train.max(initial=0)), int(scored.max(initial=0)), UNKNOWN) + 1,
                len(self.tags),
            ),
            dtype=np.int64,
        )
        has_tag = train_tags.values != IGNORED
        np.add.at(counts, (train[has_tag], train_tags.values[has_tag]), 1)
        counts[counts.sum(axis=1) == 0] = counts.sum(axis=0)
        guess = counts.argmax(axis=1)[scored]
        right = (guess == scored_tags.values)[scored_tags.values != IGNORED]
        if not len(right):
            return {}
        scores = {"accuracy": float(right.mean())}
        if self.scheme != "none":
            scores |= self._span_scores(
                torch.from_numpy(guess), torch.from_numpy(scored_tags.values), scored_tags.offsets
            )
        return scores

    def _span_scores(self, guess: Tensor, target: Tensor, offsets: np.ndarray) -> dict[str, float]:
        """span_f1 of the tags of all rows in one, with a word without a tag after each row."""
        import torch

        places = torch.from_numpy(
            np.arange(len(guess)) + np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        )
        one_row = [
            torch.full((1, len(guess) + len(offsets)), IGNORED).index_copy_(1, places, tags[None])
            for tags in (guess, target)
        ]
        predicted, actual = (
            {*zip(spans.starts.tolist(), spans.stops.tolist(), spans.types.tolist(), strict=True)}
            for spans in (
                self.finder.find(one_row[0], one_row[1] != IGNORED),
                self.finder.find(one_row[1]),
            )
        )
        return {"span_f1": 2 * len(predicted & actual) / max(len(predicted) + len(actual), 1)}

    def describe(self) -> str:
        """'token_classification of chunk: 23 tags (O 13 %, ...) in the scheme BIO'."""
        counted = sorted(
            zip(self.class_counts, self.tags, strict=True), key=lambda pair: (-pair[0], pair[1])
        )
        total = max(sum(self.class_counts), 1)
        shown = ", ".join(f"{tag} {percent_text(count / total)}" for count, tag in counted[:3])
        more = ", ..." if len(self.tags) > 3 else ""
        scheme = (
            ""
            if self.scheme == "none"
            else f", marking spans of {len(self.finder.types):,} types ({self.scheme.upper()})"
        )
        return (
            f"token_classification of {self.target_names[0]}: {len(self.tags):,} tags "
            f"({shown}{more}){scheme}"
        )


def build(config: Config, targets: Mapping[str, Column]) -> TokenClassification:
    """The task over the tags of the training rows."""
    ((name, column),) = targets.items()
    refuse_empty(column)
    if column.kind != "sequence":
        raise DataError(
            f"the target {name} is {column.kind}, and every word needs a tag of its own.",
            hint="give a column of tags (source conll, or lists in JSON Lines), or choose task: "
            "classification",
        )
    refuse_missing(column)
    values = np.asarray(column.values)
    counts = np.bincount(values[values >= 0], minlength=len(column.categories)).tolist()
    count_of = {tag: count for tag, count in zip(column.categories, counts, strict=True) if count}
    if len(count_of) < 2:
        only = next(iter(count_of), None)
        problem = f"the tag {only} at every word" if only else "no tag at all"
        raise DataError(
            f"the target {name} has {problem} of {len(column):,} training rows: there is nothing "
            "to learn.",
            hint="look at data.target and at the split",
        )
    classes = complete_tag_set(list(count_of))
    return TokenClassification(
        name, classes, [count_of.get(tag, 0) for tag in classes], config.unseen
    )


def restore(config: Config, state: Mapping[str, Any]) -> TokenClassification:
    """The task whose `state()` this is."""
    return TokenClassification(
        state["target"], state["classes"], state["class_counts"], config.unseen
    )


def _refuse_unequal(sizes: Mapping[str, np.ndarray], rows: np.ndarray, table: Table) -> None:
    """Raises DataError that names the first row whose sequences differ in length."""
    (first, expected), *rest = sizes.items()
    for name, size in rest:
        odd = np.flatnonzero(size[rows] != expected[rows])
        if len(odd):
            row = int(rows[odd].min())
            raise DataError(
                f"{name} has {size[row]:,} places and {first} {expected[row]:,}; every word needs "
                "one tag"
                f"{f' ({len(odd):,} rows like this)' if len(odd) > 1 else ''}.",
                where=table.where(row),
                hint="mend the row; a text must be split as its tags are (vocabulary with split: "
                "spaces, or a column of words)",
            )


def _first_codes(words: Ragged) -> np.ndarray:
    """The first code of each word, int64."""
    values = words.values if words.values.ndim == 1 else words.values[:, 0]
    return (
        values.astype(np.int64)
        if values.dtype.kind in "iu"
        else np.zeros(len(values), dtype=np.int64)
    )


def _with_words(answer: dict[str, Any], column: Column, row: int) -> dict[str, Any]:
    """An answer with its words and the texts of its spans, where the row's words are known."""
    count = len(answer["prediction"])
    text = column.text(row) if column.kind == "text" else None
    if column.kind == "sequence":
        value = column.python_value(row)
        words = [str(word or "") for word in value] if isinstance(value, list) else []
        characters = None
    else:
        tries = [list(word_pattern(by).finditer(text or "")) for by in ("words", "spaces")]
        matches = next((candidate for candidate in tries if len(candidate) == count), None)
        words = [match[0] for match in matches or []]
        characters = [match.span() for match in matches or []]
    if len(words) != count:
        return answer
    completed_answer = {"prediction": answer["prediction"], "words": words}
    if "spans" not in answer:
        return completed_answer
    return {
        **completed_answer,
        "spans": [_span_with_text(span, words, text, characters) for span in answer["spans"]],
    }


def _span_with_text(
    span: dict[str, Any], words: list[str], text: str | None, places: list[tuple[int, int]] | None
) -> dict[str, Any]:
    start, stop = span["start"], span["stop"]
    if text is None or places is None:
        return {**span, "text": " ".join(words[start:stop])}
    characters = [places[start][0], places[stop - 1][1]]
    return {**span, "text": text[characters[0] : characters[1]], "characters": characters}
