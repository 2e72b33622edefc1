"""Speech recognition: the text of a recording, by characters over frames (CTC).

The target is a text column; the task writes the characters of its training rows. For each frame the
model returns a logit for the blank (no new character) and one for every character; an answer takes
the likeliest of each frame, drops repeats, then blanks.
Source: Graves et al., 2006, "Connectionist temporal classification"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.data.examples import Examples, Ragged
from danlu.errors import DataError
from danlu.parts.tasks._base import (
    Answer,
    AnswersFromArrays,
    AnswersOutputs,
    CutsExamples,
    HasReferences,
    PreparedInputs,
    ScoreOrder,
    Task,
)
from danlu.parts.tasks._targets import refuse_empty, refuse_missing
from danlu.recipe import Options
from danlu.terms import Column, InputSpec, OutputSpec, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.terms import Batch

ASKS = "spelling"
TARGETS = (1, 1)
DEFAULTS = {
    "model": "conformer",
    "loss": "ctc",
    "metrics": ["character_error_rate", "word_error_rate"],
    "data.split": "random",
}
BLANK = 0
_MOST_CHARACTERS = 20_000


class Config(Options):
    """How the target is written."""

    lower: bool = Field(
        True, description="Put the target into lower case; so are the answers then."
    )


class SpeechRecognition(CutsExamples, AnswersOutputs, HasReferences, AnswersFromArrays, Task):
    """The characters of the target, and how outputs (N, F, 1 + characters) become text."""

    score_order: ScoreOrder = ("loss", "lower")

    def __init__(
        self, target: str, characters: Sequence[str], lower: bool, counts: Sequence[int]
    ) -> None:
        self.target_names = (target,)
        self.characters = tuple(characters)
        self.counts = tuple(counts)  # of the training rows
        self.lower = lower
        self.output = OutputSpec(1 + len(self.characters), ("", *self.characters), per="frame")
        self._code = {character: code for code, character in enumerate(self.characters, start=1)}

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {
            "target": self.target_names[0],
            "characters": list(self.characters),
            "counts": list(self.counts),
        }

    def encode(self, targets: Mapping[str, Column]) -> Ragged:
        """The characters' codes, int64, 0 after a row's end. DataError that names column and
        character for one that no training row has."""
        (name,) = self.target_names
        texts = _texts(targets[name], self.lower)
        strange = sorted({character for text in texts for character in text} - self._code.keys())
        if strange:
            raise DataError(
                f"the target {name} holds {', '.join(map(repr, strange[:5]))}, which no training "
                "row has.",
                hint="mend those rows, or train with rows that hold every character",
            )
        codes = np.array(
            [self._code[character] for text in texts for character in text], dtype=np.int64
        )
        offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
        return Ragged(codes, offsets, fill=BLANK)

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: dict[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """The rows themselves. DataError that names the row whose text has more characters than its
        recording has frames."""
        target = None
        if targets and not answering:
            name = self.target_names[0]
            rows = np.sort(np.concatenate(list(splits.values())))
            some = self.encode({name: targets[name].take(rows)})
            sizes = np.zeros(len(table), dtype=np.int64)
            sizes[rows] = some.sizes
            target = Ragged(
                some.values, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), fill=BLANK
            )
            self._refuse_short(arrays, sizes, table)
        return Examples(dict(arrays), dict(specs), target, splits)

    def _refuse_short(self, arrays: PreparedInputs, sizes: np.ndarray, table: Table) -> None:
        for field in arrays.values():
            if isinstance(field, Ragged) and field.lengths:
                short = np.flatnonzero(field.sizes < sizes)
                if len(short):
                    row = int(short[0])
                    raise DataError(
                        f"the text has {sizes[row]} characters, and the recording only "
                        f"{field.sizes[row]} frames "
                        f"({len(short):,} such rows).",
                        where=table.where(row),
                        hint="leave out such rows, or make the hop of log_mel shorter",
                    )

    def texts(self, outputs: Tensor) -> list[str]:
        """The likeliest text of each row."""
        return self._spelt(outputs.argmax(dim=2).cpu().numpy())

    def _spelt(self, best_BT: np.ndarray) -> list[str]:
        texts = []
        for row in best_BT:
            kept = row[np.append(True, row[1:] != row[:-1])] if len(row) else row
            texts.append("".join(self.characters[code - 1] for code in kept if code != BLANK))
        return texts

    def answers(self, outputs: Tensor) -> list[Answer]:
        """{"prediction": text, "confidence": the probability of the least certain character} per
        row; 1 where there is no character."""
        return self.answers_from_arrays(
            {"probabilities": outputs.double().softmax(dim=2).cpu().numpy()}, {}
        )

    keeps_rows = True

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"probabilities": float64 (N, F, characters and blank)}."""
        return {"probabilities": outputs.double().softmax(dim=2)}

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `answers` gives them, from the arrays of `finish`."""
        likely_BTS = arrays["probabilities"].astype(np.float64)
        code_BT = likely_BTS.argmax(axis=2)
        sure_B = np.where(code_BT == BLANK, 1.0, likely_BTS.max(axis=2, initial=0.0)).min(
            axis=1, initial=1.0
        )
        return [
            {"prediction": text, "confidence": sure}
            for text, sure in zip(self._spelt(code_BT), sure_B.tolist(), strict=True)
        ]

    def references(self, batch: Batch) -> list[str]:
        """The right texts."""
        rows = batch.target.cpu().tolist()
        return ["".join(self.characters[code - 1] for code in row if code != BLANK) for row in rows]

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """The scores of writing nothing: every character is missing."""
        return (
            {"character_error_rate": 1.0, "word_error_rate": 1.0}
            if len(examples.splits[split])
            else {}
        )

    def describe(self) -> str:
        """'speech recognition of said: 27 characters'."""
        shown = "".join(self.characters[:40])
        return (
            f"speech recognition of {self.target_names[0]}: {len(self.characters):,} characters "
            f"({shown!r})"
        )


def _texts(column: Column, lower: bool) -> list[str]:
    refuse_missing(column)
    if column.kind not in ("text", "category"):
        raise DataError(
            f"the target {column.name} holds {column.kind}, and the task writes text.",
            hint=f"set data.columns.{column.name}.kind to text",
        )
    texts = [str(column.python_value(row)) for row in range(len(column))]
    return [text.lower() for text in texts] if lower else texts


def build(config: Config, targets: Mapping[str, Column]) -> SpeechRecognition:
    """The task over the characters of the training rows."""
    ((name, column),) = targets.items()
    refuse_empty(column)
    counts: dict[str, int] = {}
    for text in _texts(column, config.lower):
        for character in text:
            counts[character] = counts.get(character, 0) + 1
    if not counts:
        raise DataError(
            f"the target {name} is empty in all training rows.",
            hint="look at data.target and at the split",
        )
    if len(counts) > _MOST_CHARACTERS:
        raise DataError(
            f"the target {name} holds {len(counts):,} different characters; at most "
            f"{_MOST_CHARACTERS:,} are written."
        )
    characters = sorted(counts)
    return SpeechRecognition(name, characters, config.lower, [counts[each] for each in characters])


def restore(config: Config, state: Mapping[str, Any]) -> SpeechRecognition:
    """The task whose `state()` this is."""
    return SpeechRecognition(state["target"], state["characters"], config.lower, state["counts"])
