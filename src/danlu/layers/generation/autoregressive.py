"""Autoregressive generation: one token after another from a language model, for many prompts.

B rows that are still generated, T places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from danlu.layers.generation.kv_cache import Cache, Cached
from danlu.layers.generation.sampling import Sampling, next_token
from danlu.terms import BEGINNING, END, MASK, PADDING, UNKNOWN

NEVER_DRAWN = (PADDING, UNKNOWN, BEGINNING, MASK)


class Continuation:
    """Rows of tokens that grow by one at each `step`, until they end or are stopped.

    Each row is a function of its own prompt and number, the seed and the weights; rows that are
    generated beside it change the last digits of logits at most. The model sees the last `context`
    tokens: a row that reaches that length drops its first quarter and is read again. A model with a
    cache (danlu.layers.generation.kv_cache.Cached) reads each token once, any other reads the whole
    row at every step.

    codes     the tokens of each row, prompt included
    alive     the indices of the rows that are still generated
    """

    def __init__(
        self,
        module: nn.Module,
        prompts: Sequence[Sequence[int]],
        context: int,
        sampling: Sampling,
        seed: int,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Each of `prompts` has at least one token. `numbers` are the row numbers that select the
        random draws (default 0, 1, 2, ...), for prompts that come in portions."""
        self.module = module
        self.context = max(context, 1)
        self.sampling = sampling
        self.seed = seed
        self.codes = [list(prompt) for prompt in prompts]
        self.numbers = list(range(len(prompts)) if numbers is None else numbers)
        self.alive = list(range(len(prompts)))
        self._drawn = [0] * len(prompts)
        self._begins = [0] * len(prompts)  # the first token of each row that the model still sees
        self._read_to = [0] * len(prompts)  # how many tokens of each row the cache has read
        self._cached_rows: list[int] = []  # the rows of the cache, in its order
        self._cache: Cache | None = None
        self._device = next(module.parameters()).device
        self._seen: Tensor | None = None

    def stop(self, row: int) -> None:
        """Generate no more tokens of a row."""
        if row in self.alive:
            self.alive.remove(row)

    @torch.inference_mode()
    def step(self) -> dict[int, int]:
        """Append one token to every row alive; gives row -> token. A row whose token is END is
        alive no more."""
        if not self.alive:
            return {}
        logits_BV = self._logits().float()
        logits_BV[:, list(NEVER_DRAWN)] = float("-inf")
        numbers = torch.tensor([self.numbers[row] for row in self.alive])
        steps = torch.tensor([self._drawn[row] for row in self.alive])
        tokens = next_token(
            logits_BV, self.sampling, self.seed, numbers, steps, self._seen_by(logits_BV.shape[1])
        ).tolist()
        by_row = dict(zip(self.alive, tokens, strict=True))
        for row, token in by_row.items():
            self.codes[row].append(token)
            self._drawn[row] += 1
            if self._seen is not None:
                self._seen[row, token] = True
            if token == END:
                self.alive.remove(row)
        return by_row

    def _seen_by(self, size: int) -> Tensor | None:
        """Which tokens each row alive holds, bool (B, V); None without a repetition penalty."""
        if self.sampling.repetition_penalty == 1:
            return None
        if self._seen is None:
            self._seen = torch.zeros(len(self.codes), size, dtype=torch.bool, device=self._device)
            for row, codes in enumerate(self.codes):
                self._seen[row, torch.tensor(codes, device=self._device)] = True
        return self._seen[torch.tensor(self.alive, device=self._device)]

    def _logits(self) -> Tensor:
        """The logits of the next token of every row alive, (B, V)."""
        for row in self.alive:
            if len(self.codes[row]) - self._begins[row] > self.context:
                self._begins[row] = len(self.codes[row]) - (self.context - self.context // 4)
                self._read_to[row] = 0
        if not isinstance(self.module, Cached):
            tokens_BT, sizes_B = self._unread(self.alive)
            return _last(self.module({"tokens": tokens_BT}), sizes_B)
        old = [row for row in self.alive if self._read_to[row]]
        new = [row for row in self.alive if not self._read_to[row]]
        logits: dict[int, Tensor] = {}
        if old and self._cache is not None:
            if old != self._cached_rows:
                self._cache = self._cache.keep([self._cached_rows.index(row) for row in old])
            logits = self._extend(self.module, self._cache, old)
        if new:
            fresh = self.module.cache(len(new), self.context)
            logits |= self._extend(self.module, fresh, new)
            self._cache = fresh if not old or self._cache is None else self._cache.join(fresh)
        self._cached_rows = [*old, *new]
        return torch.stack([logits[row] for row in self.alive])

    def _extend(self, module: Cached, cache: Cache, rows: list[int]) -> dict[int, Tensor]:
        """Append to the cache of `rows` what it has not read yet; gives row -> logits (V,)."""
        tokens_BT, sizes_B = self._unread(rows)
        logits_BTV = module.extend(tokens_BT, cache, sizes_B)
        for row in rows:
            self._read_to[row] = len(self.codes[row])
        return dict(zip(rows, _last(logits_BTV, sizes_B), strict=True))

    def _unread(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """(the tokens of `rows` that no cache has read, padded at the end, (B, T); how many each
        row has, (B,))."""
        pieces = [self.codes[row][max(self._begins[row], self._read_to[row]) :] for row in rows]
        longest = max(map(len, pieces))
        tokens = torch.tensor(
            [piece + [PADDING] * (longest - len(piece)) for piece in pieces], device=self._device
        )
        return tokens, torch.tensor([len(piece) for piece in pieces], device=self._device)


def _last(logits_BTV: Tensor, sizes_B: Tensor) -> Tensor:
    """The logits after the last real token of each row, (B, V)."""
    return logits_BTV[torch.arange(len(logits_BTV), device=logits_BTV.device), sizes_B - 1]
