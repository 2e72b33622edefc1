"""Beam search against exhaustive search, against a plain one written row by row, and against greedy search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from danlu.parts.tasks._beam_search import Hypothesis, beam_search, stable_topk

BEGIN, END, V = 0, 1, 5
Table = Callable[[int, Sequence[int]], Tensor]


def model(seed: int) -> Table:
    """Logits of what follows a prefix in a row: drawn from (seed, row, prefix), so that any context
    matters."""

    def logits(row: int, prefix: Sequence[int]) -> Tensor:
        number = seed
        for code in (row, *prefix):
            number = (number * 31 + code + 7) % 1_000_003
        return 2 * torch.randn(V, generator=torch.Generator().manual_seed(number))

    return logits


def search(table: Table, limits: Sequence[int], **options: object) -> list[list[Hypothesis]]:
    """Beam search over a table, which checks the parents it is told on the way."""
    prefixes: list[tuple[int, list[int]]] = [(row, []) for row in range(len(limits))]

    def step(tokens: Tensor, parents: Tensor) -> Tensor:
        nonlocal prefixes
        came = [prefixes[parent] for parent in parents.tolist()]
        prefixes = [(row, [*codes, code]) for (row, codes), code in zip(came, tokens.tolist())]
        return torch.stack([table(row, codes[1:]) for row, codes in prefixes])

    return beam_search(step, limits, begin=BEGIN, end=END, forbidden=[BEGIN], **options)  # type: ignore[arg-type]


def log_probability(table: Table, row: int, codes: Sequence[int]) -> float:
    return sum(
        float(table(row, codes[:place]).double().log_softmax(0)[code])
        for place, code in enumerate(codes)
    )


def penalty(length: int, alpha: float) -> float:
    return ((5 + length) / 6) ** alpha


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0, -0.7])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_a_beam_for_every_prefix_it_finds_the_best_of_all_sequences(
    alpha: float, seed: int
) -> None:
    table, limits = model(seed), [4, 1, 3]
    found = search(table, limits, beams=3**4, length_penalty=alpha)
    for row, limit in enumerate(limits):
        codes = [code for code in range(V) if code not in (BEGIN, END)]
        every = [
            (*inner, END)
            for length in range(limit)
            for inner in itertools.product(codes, repeat=length)
        ]
        best = max(
            every, key=lambda each: log_probability(table, row, each) / penalty(len(each), alpha)
        )
        assert found[row][0].tokens == best[:-1]
        assert found[row][0].log_probability == pytest.approx(log_probability(table, row, best))
        assert found[row][0].score == pytest.approx(
            log_probability(table, row, best) / penalty(len(best), alpha)
        )
        assert found[row][0].ended


def plainly(
    table: Table, row: int, limit: int, beams: int, alpha: float
) -> list[tuple[tuple[int, ...], float, bool]]:
    """The rule of the module's docstring, for one row, with lists."""
    alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    complete: list[tuple[tuple[int, ...], float, bool]] = []
    for length in range(1, limit + 1):
        every = []
        for log, codes in alive:
            logs = table(row, codes).double().log_softmax(0)
            every += [
                (log + float(logs[code]), (*codes, code)) for code in range(V) if code != BEGIN
            ]
        every.sort(key=lambda each: -each[0])
        best = every[: 2 * beams]
        complete += [
            (codes[:-1], log / penalty(length, alpha), True)
            for log, codes in best[:beams]
            if codes[-1] == END
        ]
        alive = [each for each in best if each[1][-1] != END][:beams]
        bound = alive[0][0] / max(penalty(limit, alpha), penalty(length + 1, alpha))
        if len(complete) >= beams or (complete and bound < max(score for _, score, _ in complete)):
            break
    if not complete:
        complete = [(codes, log / penalty(limit, alpha), False) for log, codes in alive]
    return sorted(complete, key=lambda each: -each[1])[:beams]


@pytest.mark.parametrize("beams", [1, 2, 3, 7])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_many_rows_at_once_find_what_each_finds_alone(beams: int, alpha: float) -> None:
    table, limits = model(9), [6, 2, 9, 1, 5, 7, 3]
    found = search(table, limits, beams=beams, length_penalty=alpha)
    for row, limit in enumerate(limits):
        wanted = plainly(table, row, limit, beams, alpha)
        assert [each.tokens for each in found[row]] == [codes for codes, _, _ in wanted]
        assert [each.ended for each in found[row]] == [ended for _, _, ended in wanted]
        assert [each.score for each in found[row]] == pytest.approx(
            [score for _, score, _ in wanted]
        )


def test_one_beam_is_greedy_search() -> None:
    table, limits = model(4), [8] * 20
    for row, found in enumerate(search(table, limits, beams=1, length_penalty=1.0)):
        codes: list[int] = []
        while len(codes) < 8 and (not codes or codes[-1] != END):
            logits = table(row, codes)
            logits[BEGIN] = -math.inf
            codes.append(int(logits.argmax()))
        assert found[0].tokens == tuple(code for code in codes if code != END)
        assert found[0].ended == (END in codes)


def test_no_run_stands_twice_where_that_is_forbidden() -> None:
    def always(row: int, prefix: Sequence[int]) -> Tensor:
        return torch.tensor([0.0, -20.0, 1.0, 0.5, 0.4])

    for size in (1, 2, 3):
        (found,) = search(always, [9], beams=4, no_repeat=size)
        for each in found:
            runs = [
                each.tokens[start : start + size] for start in range(len(each.tokens) - size + 1)
            ]
            assert len(set(runs)) == len(runs)
    assert search(always, [9], beams=2)[0][0].tokens == (2,) * 9


def test_of_equals_the_smaller_code_comes_first() -> None:
    (found,) = search(lambda row, prefix: torch.zeros(V), [3], beams=3, length_penalty=0.0)
    assert found[0].tokens == ()
    values = torch.tensor([[1.0, 3.0, 3.0, 3.0, 2.0], [5.0, 4.0, 4.0, 4.0, 4.0]])
    assert stable_topk(values, 2)[1].tolist() == [[1, 2], [0, 1]]
    assert stable_topk(values, 4)[0].tolist() == [[3.0, 3.0, 3.0, 2.0], [5.0, 4.0, 4.0, 4.0]]


def test_it_ends_before_the_limit_where_no_beam_can_win() -> None:
    calls = 0

    def ending(row: int, prefix: Sequence[int]) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0])

    (found,) = search(ending, [1000], beams=2, length_penalty=0.6)
    assert found[0].tokens == ()
    assert calls < 10


def test_no_rows_need_no_step() -> None:
    assert search(model(1), [], beams=2) == []
