"""Beam search: the likeliest sequence that a model of next tokens would write, approximately.

    score(Y) = log P(Y) / penalty(Y),   penalty(Y) = ((5 + |Y|) / 6)^length_penalty

|Y| counts the end. At each step every beam of a row is extended by every code, and the best `beams`
by log P are kept. Of the 2 * beams best, those that end within the first `beams` are complete. A
row is done when `beams` sequences are complete, or when no beam can still beat the best of them:
log P only falls, and the penalty is largest at the longest length. With enough beams for every
prefix the search is exact; one beam is greedy search.
Sources: Sutskever et al., 2014, arXiv:1409.3215; Wu et al., 2016, arXiv:1609.08144 (length
penalty).

R rows, K beams of a row, N = rows times beams in progress, V codes, L tokens so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]
MINUS_INFINITY = -math.inf


@dataclass(frozen=True)
class Hypothesis:
    """A complete sequence: `tokens` without beginning and end, its log-probability, its score;
    `ended` is False where it was cut off."""

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool


def beam_search(
    step: Step,
    limits: Sequence[int],
    *,
    begin: int,
    end: int,
    beams: int = 5,
    length_penalty: float = 0.6,
    no_repeat: int = 0,
    forbidden: Sequence[int] = (),
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """The hypotheses of each row, best first, at most `beams`; ties go to the smaller codes.

    step        step(tokens_N, parents_N) -> logits_NV of the code after `tokens`, int64 (N,); row n
                continues row parents_N[n] of the call before. The first call has one row per row of
                the batch, with `begin`
    limits      the most tokens of each row, its end included; where nothing has ended by then, the
                beams as they are
    no_repeat   no run of so many tokens occurs twice in a sequence; 0: any may
    forbidden   codes that are never written
    """
    search = _Search(limits, begin, end, beams, length_penalty, no_repeat, forbidden, device)
    parents = torch.arange(len(limits), device=device)
    while len(search.rows):
        logits_NV = step(search.tokens_RKL[:, :, -1].reshape(-1), parents)
        parents = search.advance(logits_NV)
    return search.hypotheses


class _Search:
    """The beams of the rows that are not done yet."""

    def __init__(
        self,
        limits: Sequence[int],
        begin: int,
        end: int,
        beams: int,
        length_penalty: float,
        no_repeat: int,
        forbidden: Sequence[int],
        device: torch.device | str,
    ) -> None:
        self.limits = list(limits)
        self.end, self.beams, self.length_penalty, self.no_repeat = (
            end,
            beams,
            length_penalty,
            no_repeat,
        )
        self.forbidden = torch.tensor(list(forbidden), dtype=torch.int64, device=device)
        self.rows = list(range(len(self.limits)))
        self.tokens_RKL = torch.full(
            (len(self.rows), 1, 1), begin, dtype=torch.int64, device=device
        )
        self.log_RK = torch.zeros(len(self.rows), 1, dtype=torch.float64, device=device)
        self.complete: list[list[Hypothesis]] = [[] for _ in self.rows]
        self.hypotheses: list[list[Hypothesis]] = [[] for _ in self.rows]

    def advance(self, logits_NV: Tensor) -> Tensor:
        """Extend every beam; returns the parents_N of the beams kept."""
        R, K, _ = self.tokens_RKL.shape
        log_NV = logits_NV.detach().double().log_softmax(dim=1)
        log_NV[:, self.forbidden] = MINUS_INFINITY
        if self.no_repeat:
            self._forbid_repeats(log_NV)
        V = log_NV.shape[1]
        total_RC = (self.log_RK.reshape(-1, 1) + log_NV).view(R, K * V)
        log_RM, place_RM = stable_topk(total_RC, min(2 * self.beams, K * V))
        parent_RM, token_RM = place_RM // V, place_RM % V
        ends_RM = token_RM == self.end
        self._finish(log_RM, parent_RM, ends_RM)
        # The beams kept are the first that do not end. A stable sort by "ends" keeps their order.
        order_RK = (
            (ends_RM | log_RM.isneginf()).int().sort(dim=1, stable=True).indices[:, : self.beams]
        )
        parent_RK, token_RK = parent_RM.gather(1, order_RK), token_RM.gather(1, order_RK)
        dead_RK = (ends_RM | log_RM.isneginf()).gather(1, order_RK)
        self.log_RK = log_RM.gather(1, order_RK).masked_fill(dead_RK, MINUS_INFINITY)
        L = self.tokens_RKL.shape[2]
        kept_RKL = self.tokens_RKL.gather(1, parent_RK[..., None].expand(-1, -1, L))
        self.tokens_RKL = torch.cat([kept_RKL, token_RK[..., None]], dim=2)
        going = [index for index in range(R) if not self._done(index)]
        parents_RK = parent_RK + torch.arange(R, device=parent_RK.device)[:, None] * K
        if len(going) < R:
            chosen = torch.tensor(going, dtype=torch.int64, device=parent_RK.device)
            self.rows, self.complete = (
                [self.rows[index] for index in going],
                [self.complete[index] for index in going],
            )
            self.tokens_RKL, self.log_RK, parents_RK = (
                self.tokens_RKL[chosen],
                self.log_RK[chosen],
                parents_RK[chosen],
            )
        return parents_RK.reshape(-1)

    def _penalty(self, length: int) -> float:
        return ((5 + length) / 6) ** self.length_penalty

    def _finish(self, log_RM: Tensor, parent_RM: Tensor, ends_RM: Tensor) -> None:
        """Store the sequences that end among the first `beams` candidates."""
        ended = ends_RM[:, : self.beams] & ~log_RM[:, : self.beams].isneginf()
        length = self.tokens_RKL.shape[2]
        for index, candidate in ended.nonzero().tolist():
            log = float(log_RM[index, candidate])
            tokens = tuple(self.tokens_RKL[index, int(parent_RM[index, candidate]), 1:].tolist())
            self.complete[index].append(Hypothesis(tokens, log, log / self._penalty(length), True))

    def _done(self, index: int) -> bool:
        """Whether a row is done; its hypotheses are then sorted."""
        row, complete, length = self.rows[index], self.complete[index], self.tokens_RKL.shape[2] - 1
        best = float(self.log_RK[index, 0])
        limit = self.limits[row]
        if len(complete) < self.beams and length < limit and best > MINUS_INFINITY:
            if not complete:
                return False
            bound = best / max(self._penalty(limit), self._penalty(length + 1))
            if bound >= max(hypothesis.score for hypothesis in complete):
                return False
        if not complete:
            for beam, log in enumerate(self.log_RK[index].tolist()):
                if log > MINUS_INFINITY:
                    tokens = tuple(self.tokens_RKL[index, beam, 1:].tolist())
                    complete.append(
                        Hypothesis(tokens, log, log / self._penalty(max(length, 1)), False)
                    )
        self.hypotheses[row] = sorted(complete, key=lambda each: (-each.score, each.tokens))[
            : self.beams
        ]
        return True

    def _forbid_repeats(self, log_NV: Tensor) -> None:
        """Forbid the codes that would complete a run that a beam has already."""
        size = self.no_repeat
        tokens_NL = self.tokens_RKL.reshape(-1, self.tokens_RKL.shape[2])[:, 1:]
        if tokens_NL.shape[1] < size:
            return
        runs_NWn = tokens_NL.unfold(1, size, 1)
        last_Nn = tokens_NL[:, tokens_NL.shape[1] - size + 1 :]
        again_NW = (runs_NWn[..., :-1] == last_Nn[:, None]).all(dim=2)
        beam, run = again_NW.nonzero(as_tuple=True)
        log_NV[beam, runs_NWn[beam, run, -1]] = MINUS_INFINITY


def stable_topk(values_RC: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(the `count` largest values of each row, their indices), largest first, ties by the smaller
    index; torch.topk does not order ties.

    >>> stable_topk(torch.tensor([[1.0, 3.0, 3.0]]), 2)[1].tolist()
    [[1, 2]]
    """
    least_R1 = values_RC.topk(count, dim=1).values[:, -1:]
    row, index = (values_RC >= least_R1).nonzero(as_tuple=True)
    count_R = torch.bincount(row, minlength=len(values_RC))
    width = int(count_R.max())
    column = torch.arange(len(row), device=row.device) - (count_R.cumsum(0) - count_R)[row]
    place_RW = index.new_zeros(len(values_RC), width)
    value_RW = values_RC.new_full((len(values_RC), width), MINUS_INFINITY)
    place_RW[row, column], value_RW[row, column] = index, values_RC[row, index]
    value_RW, order_RW = value_RW.sort(dim=1, descending=True, stable=True)
    return value_RW[:, :count], place_RW.gather(1, order_RW)[:, :count]
