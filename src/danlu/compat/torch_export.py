"""Whether a forward pass is being captured as a graph (torch.export) instead of run: no number can be looked at then."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """True while torch.export traces a module: what depends on the numbers of a batch must then
    take the way that fits all of them."""
    return torch.compiler.is_exporting()
