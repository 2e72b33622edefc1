"""A linear-chain CRF over the positions of a row, read out as the marginals of each label.

The chain gives a sequence of labels y the weight exp(sum_t u_t[y_t] + A[y_t-1, y_t]), with u the
network's outputs and A learnt. Its exact marginals take one pass in each direction. Training
maximises the probability of the right label at every position, instead of that of the whole
sequence: so outputs stay one number per label and position, and every loss and metric of labels
works on them.
Sources: Lafferty, McCallum and Pereira, 2001 (the chain); Kakade, Teh and Roweis, 2002 (training
marginals).

B batch, T positions, S labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from danlu.compat.torch_export import is_exporting
from danlu.layers.recurrent.rnn import reorder, reversed_places


class TransitionMarginals(nn.Module):
    """(u_BTS, lengths_B) -> log p(label at position t | row), float32 (B, T, S). Transitions start
    at 0, which gives the softmax of u."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(labels, labels))

    def forward(self, u_BTS: Tensor, lengths_B: Tensor) -> Tensor:
        with torch.autocast(u_BTS.device.type, enabled=False):
            u_BTS = u_BTS.float()
            turned_BT = reversed_places(lengths_B, u_BTS.shape[1])
            both_2BTS = torch.stack([u_BTS, reorder(u_BTS, turned_BT)])
            ahead_BTS, back_BTS = self._reached(both_2BTS).unbind(0)
            return (ahead_BTS + reorder(back_BTS, turned_BT) - u_BTS).log_softmax(dim=2)

    def _reached(self, u_2BTS: Tensor) -> Tensor:
        """Log weight of all label sequences that lead to each label of each position, up to a
        constant per position; index 0 from the left, 1 from the right.

        Within a position probabilities are multiplied, between positions their logarithms are kept:
        nothing overflows, and what underflows is e^-87 of the rest."""
        weights_2SS = torch.stack([self.transitions, self.transitions.T]).exp()
        if is_exporting():
            return _scanned(u_2BTS, weights_2SS)
        now_2BS = u_2BTS[:, :, 0]
        forward = [now_2BS]
        for u_2BS in u_2BTS.unbind(2)[1:]:
            now_2BS = now_2BS - now_2BS.amax(dim=2, keepdim=True).detach()
            now_2BS = torch.bmm(now_2BS.exp(), weights_2SS).log() + u_2BS
            forward.append(now_2BS)
        return torch.stack(forward, dim=2)


def _scanned(u_2BTS: Tensor, weights_2SS: Tensor) -> Tensor:
    """The same as a loop in the exported graph, for any number of positions."""
    from torch._higher_order_ops import scan

    def step(carry: tuple[Tensor, Tensor], u_2BS: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        before_2BS, begun = carry
        before_2BS = before_2BS - before_2BS.amax(dim=2, keepdim=True)
        now_2BS = u_2BS + torch.bmm(before_2BS.exp(), weights_2SS).log() * begun
        return (now_2BS, torch.ones_like(begun)), now_2BS.clone()

    places_T2BS = u_2BTS.movedim(2, 0)
    begin = (torch.zeros_like(u_2BTS[:, :, 0]), u_2BTS.new_zeros(1))
    _, found_T2BS = scan(step, begin, places_T2BS, dim=0)
    return found_T2BS.movedim(0, 2)
