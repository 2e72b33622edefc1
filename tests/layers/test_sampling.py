"""What is drawn from the logits of the next token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from danlu.layers.generation import sampling
from danlu.layers.generation.sampling import Sampling
from danlu.system.random_draws import counter_bits, counter_uniform

LOGITS = torch.from_numpy(np.random.default_rng(3).normal(0, 3, (5, 37))).float()


def kept(logits: torch.Tensor) -> list[int]:
    return torch.isfinite(logits).sum(dim=1).tolist()


def test_top_k_keeps_the_k_likeliest_and_more_than_all_keeps_all() -> None:
    found = sampling.top_k(LOGITS, 4)
    assert kept(found) == [4] * 5
    assert torch.equal(found.argmax(dim=1), LOGITS.argmax(dim=1))
    assert torch.equal(sampling.top_k(LOGITS, 99), LOGITS)


def test_top_p_keeps_the_fewest_tokens_that_reach_the_probability() -> None:
    found = sampling.top_p(LOGITS, 0.8)
    for row, logits in zip(found, LOGITS, strict=True):
        probability = logits.softmax(0)
        inside = torch.isfinite(row)
        assert probability[inside].sum() >= 0.8
        assert probability[inside].sum() - probability[inside].min() < 0.8  # one fewer would not do
        assert probability[inside].min() > probability[~inside].max()


def test_one_token_always_stays() -> None:
    assert kept(sampling.top_p(LOGITS, 1e-9)) == [1] * 5
    assert kept(sampling.min_p(LOGITS, 1.0)) == [1] * 5


def test_min_p_goes_by_the_likeliest_token() -> None:
    probability = LOGITS.softmax(1)
    inside = torch.isfinite(sampling.min_p(LOGITS, 0.1))
    assert torch.equal(inside, probability >= 0.1 * probability.amax(1, keepdim=True))


def test_a_repeated_token_becomes_less_likely_whatever_its_sign() -> None:
    seen = torch.zeros_like(LOGITS, dtype=torch.bool)
    seen[:, ::2] = True
    found = sampling.repetition_penalty(LOGITS, seen, 1.5)
    assert bool((found[seen] < LOGITS[seen]).all())
    assert torch.equal(found[~seen], LOGITS[~seen])


def test_the_filters_are_those_of_transformers_in_its_order() -> None:
    logits = pytest.importorskip(
        "transformers.generation.logits_process", reason="transformers is not installed"
    )
    tokens = torch.randint(0, 37, (5, 11), generator=torch.Generator().manual_seed(1))
    seen = torch.zeros_like(LOGITS, dtype=torch.bool).scatter_(1, tokens, True)
    chain = [
        logits.RepetitionPenaltyLogitsProcessor(1.3),
        logits.TemperatureLogitsWarper(0.7),
        logits.TopKLogitsWarper(20),
        logits.TopPLogitsWarper(0.9),
        logits.MinPLogitsWarper(0.02),
    ]
    expected = LOGITS
    for each in chain:
        expected = each(tokens, expected)
    assert torch.equal(
        sampling.filter_logits(LOGITS, Sampling(0.7, 20, 0.9, 0.02, 1.3), seen), expected
    )


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf"), 2.0, -1.0]])
    count = 20_000
    drawn = sampling.next_token(
        logits.expand(count, 5),
        Sampling(),
        5,
        torch.arange(count),
        torch.zeros(count, dtype=torch.int64),
    )
    shares = torch.bincount(drawn, minlength=5) / count
    assert shares[2] == 0
    # a share of 20,000 draws has a standard deviation of at most 0.0035; five of them
    assert torch.allclose(shares, logits[0].softmax(0), atol=0.018)


def test_temperature_zero_takes_the_likeliest_token() -> None:
    rows = torch.arange(5)
    assert torch.equal(
        sampling.next_token(LOGITS, Sampling(temperature=0), 1, rows, rows), LOGITS.argmax(1)
    )


def test_a_row_draws_the_same_alone_and_among_others() -> None:
    rows, steps = torch.arange(5), torch.full((5,), 7)
    together = sampling.next_token(LOGITS, Sampling(), 9, rows, steps)
    alone = [
        sampling.next_token(LOGITS[n : n + 1], Sampling(), 9, rows[n : n + 1], steps[:1])
        for n in range(5)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_the_edges_of_the_unit_interval_draw_a_possible_token() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]]).expand(2, 4)
    assert sampling.draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [
        1,
        2,
    ]


def test_counted_bits_are_those_of_splitmix() -> None:
    mask = 2**64 - 1
    state = 11
    for value in (3, -4):
        state = (state + value + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    assert int(counter_bits(11, torch.tensor(3), torch.tensor(-4))) & mask == state


def test_counted_numbers_are_even_and_independent_of_their_neighbours() -> None:
    drawn = counter_uniform(0, torch.arange(200)[:, None], torch.arange(50))
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    # the mean of 10,000 numbers has a standard deviation of 0.0029, a correlation one of 0.01; five
    # of them
    assert abs(float(drawn.mean()) - 0.5) < 0.015
    assert (
        abs(
            float(
                torch.corrcoef(torch.stack([drawn[:, :-1].flatten(), drawn[:, 1:].flatten()]))[0, 1]
            )
        )
        < 0.05
    )
    assert (
        abs(float(torch.corrcoef(torch.stack([drawn[:-1].flatten(), drawn[1:].flatten()]))[0, 1]))
        < 0.05
    )
