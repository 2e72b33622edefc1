"""Greedy generation and beam search with numpy alone, from logits of the next token; for exports.

They write what danlu.layers.generation.autoregressive (temperature 0) and
danlu.parts.tasks._beam_search write, without a cache: the whole row is read again for each token.
`run(rows)` gives the logits of the token after each row of codes, float32 (N, V)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from danlu.terms import BEGINNING, END, MASK, PADDING, UNKNOWN

NEVER_WRITTEN = (PADDING, UNKNOWN, BEGINNING, MASK)
Run = Callable[[list[list[int]]], np.ndarray]


def pad_rows(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of codes as int64 (N, T), PADDING at the end.

    >>> pad_rows([[7, 8], [9]]).tolist()
    [[7, 8], [9, 0]]
    """
    matrix = np.full((len(rows), max(1, *map(len, rows)) if rows else 1), PADDING, dtype=np.int64)
    for row, codes in zip(matrix, rows):
        row[: len(codes)] = codes
    return matrix


def last_logits(logits_NTV: np.ndarray, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """The logits (N, V) after the last code of each row, of logits (N, T, V)."""
    return logits_NTV[np.arange(len(rows)), np.array([len(row) for row in rows]) - 1].astype(
        np.float32
    )


def greedy(run: Run, prompts: Sequence[Sequence[int]], context: int, most: int) -> list[list[int]]:
    """The likeliest continuation of each prompt, token by token, at most `most` tokens; its last is
    END where it ended.

    The model sees the last `context` tokens at most: a row that is full drops its oldest quarter.
    """
    rows = [list(prompt) for prompt in prompts]
    begins = [0] * len(rows)
    alive = list(range(len(rows)))
    for _ in range(most):
        if not alive:
            break
        for row in alive:
            if len(rows[row]) - begins[row] > context:
                begins[row] = len(rows[row]) - (context - context // 4)
        logits = run([rows[row][begins[row] :] for row in alive])
        logits[:, list(NEVER_WRITTEN)] = -np.inf
        for row, token in zip(list(alive), logits.argmax(axis=1).tolist()):
            rows[row].append(token)
            if token == END:
                alive.remove(row)
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts)]


@dataclass
class _Row:
    """The beams of one row, as (log-probability, codes); the complete sequences as (score,
    codes)."""

    limit: int
    beams: list[tuple[float, tuple[int, ...]]] = field(default_factory=lambda: [(0.0, ())])
    complete: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)


def beam_search(
    run: Callable[[list[int], list[list[int]]], np.ndarray],
    limits: Sequence[int],
    *,
    beams: int,
    length_penalty: float,
    no_repeat: int,
) -> list[tuple[int, ...]]:
    """The best sequence of each row, without beginning and end; () where there is none. See
    danlu.parts.tasks._beam_search.

    `run(rows, codes)` gives the logits after `codes` (BEGINNING first) of the rows of these
    numbers."""
    rows = [_Row(limit) for limit in limits]
    going = list(range(len(rows)))
    while going:
        prefixes = [(row, codes) for row in going for _, codes in rows[row].beams]
        logits = run([row for row, _ in prefixes], [[BEGINNING, *codes] for _, codes in prefixes])
        logs = _log_softmax(logits)
        logs[:, list(NEVER_WRITTEN)] = -np.inf
        if no_repeat:
            for log_V, (_, codes) in zip(logs, prefixes):
                log_V[_repeating(codes, no_repeat)] = -np.inf
        start = 0
        for row in going:
            count = len(rows[row].beams)
            _advance(rows[row], logs[start : start + count], beams, length_penalty)
            start += count
        going = [row for row in going if not _done(rows[row], beams, length_penalty)]
    return [_best(row, length_penalty) for row in rows]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def _penalty(length: int, power: float) -> float:
    return ((5 + length) / 6) ** power


def _advance(row: _Row, logs: np.ndarray, beams: int, power: float) -> None:
    """Extend every beam of a row by every code; the best `beams` that do not end are kept."""
    total = (np.array([log for log, _ in row.beams])[:, None] + logs).reshape(-1)
    order = np.argsort(-total, kind="stable")[: min(2 * beams, len(total))]
    going: list[tuple[float, tuple[int, ...]]] = []
    for rank, index in enumerate(order.tolist()):
        log, codes, token = (
            float(total[index]),
            row.beams[index // logs.shape[1]][1],
            index % logs.shape[1],
        )
        if log == -np.inf:
            continue
        if token != END:
            going.append((log, (*codes, token)))
        elif rank < beams:
            row.complete.append((log / _penalty(len(codes) + 1, power), codes))
    row.beams = going[:beams]


def _done(row: _Row, beams: int, power: float) -> bool:
    if not row.beams:
        return True
    length = len(row.beams[0][1])
    if len(row.complete) >= beams or length >= row.limit:
        return True
    if not row.complete:
        return False
    return row.beams[0][0] / max(_penalty(row.limit, power), _penalty(length + 1, power)) < max(
        score for score, _ in row.complete
    )


def _best(row: _Row, power: float) -> tuple[int, ...]:
    candidates = row.complete or [
        (log / _penalty(max(len(codes), 1), power), codes) for log, codes in row.beams
    ]
    return min(candidates, key=lambda each: (-each[0], each[1]))[1] if candidates else ()


def _repeating(codes: tuple[int, ...], size: int) -> list[int]:
    """The codes that would complete a run of `size` codes that occurs already."""
    if len(codes) < size:
        return []
    last = codes[len(codes) - size + 1 :]
    return [
        codes[start + size - 1]
        for start in range(len(codes) - size + 1)
        if codes[start : start + size - 1] == last
    ]
