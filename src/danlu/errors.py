"""The errors that danlu raises on purpose.

    DanluError                 exit code 2: wrong use or wrong input
    ├── RecipeError            every problem of a recipe, all at once, each with file:line
    ├── PartError              a part that does not exist, or lacks what its shelf requires
    ├── DataError              a file, row or column that cannot be read
    ├── PlacementError         a device, dtype or thread count this machine does not have
    ├── MissingExtra           a library that is not installed; names the extra to install
    ├── RunError               a run folder that cannot be used (another recipe's, in use, no room)
    │   └── RunHeld            another process is training in it
    ├── ServerBusy             a server with as many requests as it accepts
    ├── TrainingStopped        exit code 3: training stopped by itself (NaN, divergence)
    ├── CheckpointError        exit code 4: no usable checkpoint
    ├── ArtifactError          exit code 4: no usable artifact
    ├── ExportError            exit code 4: an export that predicts something else than its artifact
    └── Interrupted            exit code 130 or 143: a signal stopped it; the state is saved

A message says which rule was broken, by which value and where; the hint says the remedy. The
command line shows these errors without a traceback."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST_SHOWN = 50  # problems of a recipe that its message lists
_LONGEST_TEXT = 4000  # characters of a message or hint
_LONGEST_NAME = 100  # letters; the slips of longer names are not looked for
_MOST_COMPARED = 1000  # names that are compared letter by letter

# Control characters (C0 but for tab and line feed, DEL, C1), the line and paragraph separators, the
# controls of writing direction (Unicode's Bidi_Control), and halves of surrogate pairs.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_BREAK = re.compile(r"\n(?!  )")  # further lines of a message are indented


def escape_controls(text: str, *, one_line: bool = False) -> str:
    r"""The text with every character that could steer a terminal, or change the order of what it
    shows, written as an escape. `one_line`: tabs and line feeds too.

    A byte of a file name that is no UTF-8, which Python holds as half a surrogate pair, is written
    as that byte.

    >>> print(escape_controls("\x1b[31mred"), escape_controls("a\nb", one_line=True))
    \x1b[31mred a\nb
    """
    if one_line:
        text = text.replace("\t", "\\t").replace("\n", "\\n")
    return CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    letter = match.group()
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def _shown(text: str) -> str:
    """A message or hint as it is printed: escaped, and not endless."""
    text = _LINE_BREAK.sub(r"\\n", text)
    text = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
    return escape_controls(text)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    where    file:line, or file, row and column
    message  the rule that is broken, and the value; further lines begin with two spaces
    hint     the remedy

    As text, control characters in it are escaped, whatever names and values it quotes.

    >>> print(Problem("recipe.yaml:3", "train.seed must be at least 0, and is -1.", "use 0"))
    recipe.yaml:3: train.seed must be at least 0, and is -1.
    hint: use 0
    """

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = escape_controls(self.where[:_LONGEST_TEXT], one_line=True)
        text = f"{where}: {_shown(self.message)}" if where else _shown(self.message)
        return f"{text}\nhint: {_shown(self.hint)}" if self.hint else text


class DanluError(Exception):
    """The base class: something that a user can cause and mend. The command line ends with
    `exit_code`."""

    exit_code = 2

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.problem = Problem(where, message, hint)
        super().__init__(str(self.problem))


class RecipeError(DanluError):
    """A recipe that breaks rules; `problems` holds all of them, its text the first MOST_SHOWN."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.message, where=first.where, hint=first.hint)
        lines = [str(problem) for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"... and {len(self.problems) - MOST_SHOWN:,} more problems.")
        self.args = ("\n".join(lines),)


class PartError(DanluError):
    """A part that does not exist, or that lacks what its shelf requires of a part."""


class DataError(DanluError):
    """A file, row or column that cannot be read, or does not hold what is needed."""


class PlacementError(DanluError):
    """A device or number format that this machine does not have."""


class RunError(DanluError):
    """A run folder that cannot be used: another recipe's, in use by another process, not writable,
    or without room."""


class RunHeld(RunError):
    """A run folder in which another process is training."""


class ServerBusy(DanluError):
    """A server with as many requests as it accepts: ask again later."""


class TrainingStopped(DanluError):
    """Training stopped by itself: NaN, infinity or divergence."""

    exit_code = 3


class CheckpointError(DanluError):
    """No usable checkpoint, or one that could not be written."""

    exit_code = 4


class ArtifactError(DanluError):
    """No usable artifact."""

    exit_code = 4


class ExportError(DanluError):
    """An export that predicts something else than its artifact; nothing of it is left."""

    exit_code = 4


class Interrupted(DanluError):
    """A signal asked training to stop; the state was saved. `exit_code` is 130 (SIGINT) or 143
    (SIGTERM, SIGUSR1)."""

    def __init__(self, message: str, *, exit_code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class MissingExtra(DanluError):
    """An optional library that is not installed; the hint names the extra that installs it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {library}, which is not installed.",
            hint=f"pip install 'danlu[{extra}]'",
        )


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most similar to `name`, best first: at most `count`, none where nothing is near.

    Case, spaces and hyphens do not count. Near are: one or two typing errors, the beginning of a
    name ("classif"), its initials ("lr" for learning_rate), one word more ("max_epochs"), or many
    letters in common.

    >>> nearest("lerning-rate", ["learning_rate", "momentum"])
    ['learning_rate']
    """
    plain = _plain(name)
    lowered: dict[str, str] = {}
    for candidate in names:
        lowered.setdefault(_plain(candidate), candidate)
    if plain in lowered:
        return [lowered[plain]]
    if len(plain) > _LONGEST_NAME:
        return []
    near = _alike(plain, [key for key in lowered if len(key) <= _LONGEST_NAME])
    scored = sorted((_strangeness(plain, key), number, key) for number, key in enumerate(near))
    return [lowered[key] for strange, _, key in scored if strange < 1][:count]


def _alike(name: str, keys: list[str]) -> list[str]:
    """The keys in their order; of more than _MOST_COMPARED those with the most letters in common
    with `name`."""
    if len(keys) <= _MOST_COMPARED:
        return keys
    letters = set(name)

    def differing(number: int) -> int:
        return len(letters.symmetric_difference(keys[number]))

    chosen = heapq.nsmallest(_MOST_COMPARED, range(len(keys)), key=differing)
    return [keys[number] for number in sorted(chosen)]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _strangeness(written: str, meant: str) -> float:
    """0 for the same word, below 1 for words that may be meant; the likelier, the smaller."""
    distance = edit_distance(written, meant)
    letters = max(len(written), len(meant))
    if distance <= max(letters / 4, 1) and letters > 2:
        return 0.6 * distance / letters
    if len(written) >= 2 and meant.startswith(written):
        return 0.5
    words = meant.split("_")
    if len(words) > 1 and written.replace("_", "") == "".join(word[:1] for word in words):
        return 0.5
    if len(meant) > 2 and set(words) <= set(written.split("_")):
        return 0.55
    if letters == 2 and distance == 1:
        return 0.6
    ratio = difflib.SequenceMatcher(None, written, meant).ratio()
    return 1.5 - ratio if ratio > 0.55 else 1.0


def edit_distance(one: str, other: str) -> int:
    """How many letters must be added, left out, changed or swapped with their neighbour to turn
    `one` into `other`.

    Source: the optimal string alignment form of Damerau, 1964, Communications of the ACM 7(3),
    171-176.

    >>> edit_distance("adma", "adam")
    1
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before, last, row = row, before, [i]
        for j, target in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != target))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == target:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A hint at the nearest name; "" where none is near.

    >>> did_you_mean("mpl", ["mlp", "cnn"])
    'did you mean mlp?'
    """
    matches = nearest(name, names, 1)
    return f"did you mean {matches[0]}?" if matches else ""
