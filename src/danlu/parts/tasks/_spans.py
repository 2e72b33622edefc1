"""Tags of words to spans: which words belong together, and the type of each span.

A tag is O (in no span), or a letter, a dash and the type of the span (B-NP). The letters by scheme:

  bio     B the first word of a span, I the others (also where spans begin with I, and B only
          separates neighbours)
  bioes   B, I, E the last word, S a span of one word (L for E and U for S are read likewise)
  io      I alone: neighbours of one type are one span
  none    tags without spans (parts of speech)

Spans begin and end as in the program conlleval of the CoNLL shared tasks, so tags that break their
scheme (I after O) still give spans: a span begins at B and S, after O, E and S, and where the type
changes.

B rows, T words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from danlu.terms import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

Scheme = Literal["bio", "bioes", "io", "none"]

OUTSIDE, BEGIN, INSIDE, END, SINGLE = range(5)
_LETTERS = {"B": BEGIN, "I": INSIDE, "E": END, "L": END, "S": SINGLE, "U": SINGLE}
_FORM = re.compile(r"([BIELSU])-(.+)", re.DOTALL)


def tagging_scheme(tags: Sequence[str]) -> Scheme:
    """The scheme of a set of tags; "none" where one of them is neither O nor of the form B-TYPE.

    >>> tagging_scheme(["O", "B-NP", "I-NP"])
    'bio'
    """
    forms = [_FORM.fullmatch(tag) for tag in tags if tag != "O"]
    letters = {form[1] for form in forms if form}
    if not letters or None in forms:
        return "none"
    if letters & set("ELSU"):
        return "bioes"
    return "io" if letters == {"I"} else "bio"


def complete_tag_set(tags: Sequence[str]) -> list[str]:
    """The tags, sorted, with those that their scheme adds for the same types: the I of a rare type
    may be missing by chance."""
    letters = {"bio": "BI", "bioes": "BIES", "io": "I", "none": ""}[tagging_scheme(tags)]
    if set("LU") & {tag[0] for tag in tags if tag != "O"}:
        letters = "BILU"
    _, _, types = split_tags(tags)
    return sorted({*tags, *(f"{letter}-{kind}" for letter in letters for kind in types)})


def split_tags(tags: Sequence[str]) -> tuple[list[int], list[int], list[str]]:
    """(the position of each tag: OUTSIDE, BEGIN, ...; the number of its type, -1 for none; the
    types, sorted)."""
    forms = [_FORM.fullmatch(tag) if tag != "O" else None for tag in tags]
    types = sorted({form[2] for form in forms if form})
    letters = [_LETTERS[form[1]] if form else OUTSIDE for form in forms]
    return letters, [types.index(form[2]) if form else -1 for form in forms], types


@dataclass(frozen=True)
class Spans:
    """Spans by row and start: words start to stop - 1 of a row, of one type; each int64
    (spans,)."""

    rows: Tensor
    starts: Tensor
    stops: Tensor
    types: Tensor


class SpanFinder:
    """Finds the spans in rows of tags, which are numbers of `tags`."""

    def __init__(self, tags: Sequence[str]) -> None:
        self.letters, self.numbers, self.types = split_tags(tags)
        self._tensors: dict[object, tuple[Tensor, Tensor]] = {}

    def find(self, tags_BT: Tensor, asked_BT: Tensor | None = None) -> Spans:
        """The spans of int64 (B, T). A word has no tag (O) where `asked` (bool) is False or the tag
        is IGNORED."""
        import torch

        letter_BT, type_BT = self._read(tags_BT, asked_BT)
        before = torch.nn.functional.pad(letter_BT[:, :-1], (1, 0), value=OUTSIDE)
        inside = letter_BT != OUTSIDE
        fresh = (letter_BT == BEGIN) | (letter_BT == SINGLE)
        closed = (before == OUTSIDE) | (before == END) | (before == SINGLE)
        changed = type_BT != torch.nn.functional.pad(type_BT[:, :-1], (1, 0), value=-1)
        starts = inside & (fresh | closed | changed)
        # the last word of a span is the one before another span or before no span
        follower_starts = torch.nn.functional.pad(starts[:, 1:], (0, 1), value=True)
        follower_inside = torch.nn.functional.pad(inside[:, 1:], (0, 1), value=False)
        lasts = inside & (follower_starts | ~follower_inside)
        rows, places = starts.nonzero(as_tuple=True)
        return Spans(rows, places, lasts.nonzero(as_tuple=True)[1] + 1, type_BT[rows, places])

    def listed(self, tags_BT: np.ndarray, asked_BT: np.ndarray) -> list[tuple[int, int, int, int]]:
        """(row, start, stop, type) of each span, as `find` has them, of numpy arrays."""
        letters, numbers = np.array([*self.letters, OUTSIDE]), np.array([*self.numbers, -1])
        index_BT = np.where((tags_BT == IGNORED) | ~asked_BT, -1, tags_BT)
        letter_BT, type_BT = letters[index_BT], numbers[index_BT]
        before = np.pad(
            letter_BT[:, :-1], [(0, 0), (min(1, letter_BT.shape[1]), 0)], constant_values=OUTSIDE
        )
        type_before = np.pad(
            type_BT[:, :-1], [(0, 0), (min(1, type_BT.shape[1]), 0)], constant_values=-1
        )
        inside = letter_BT != OUTSIDE
        fresh, closed = np.isin(letter_BT, (BEGIN, SINGLE)), np.isin(before, (OUTSIDE, END, SINGLE))
        starts = inside & (fresh | closed | (type_BT != type_before))
        lasts = inside & (_follower(starts, True) | ~_follower(inside, False))
        rows, places = starts.nonzero()
        return list(
            zip(
                rows.tolist(),
                places.tolist(),
                (lasts.nonzero()[1] + 1).tolist(),
                type_BT[rows, places].tolist(),
                strict=True,
            )
        )

    def _read(self, tags_BT: Tensor, asked_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        import torch

        is_tag = self._tensors.get(tags_BT.device)
        if is_tag is None:  # the last entry, reached by -1, is no tag
            table = torch.tensor(
                [[*self.letters, OUTSIDE], [*self.numbers, -1]], device=tags_BT.device
            )
            is_tag = self._tensors[tags_BT.device] = (table[0], table[1])
        absent = tags_BT == IGNORED
        if asked_BT is not None:
            absent = absent | ~asked_BT
        index_BT = tags_BT.masked_fill(absent, -1)
        return is_tag[0][index_BT], is_tag[1][index_BT]


def _follower(places_BT: np.ndarray, last: bool) -> np.ndarray:
    """The next word's values; `last` after the end."""
    return np.pad(places_BT[:, 1:], [(0, 0), (0, min(1, places_BT.shape[1]))], constant_values=last)
