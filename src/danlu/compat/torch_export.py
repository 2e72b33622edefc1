"""Whether a forward pass is being captured as a graph (torch.export) instead of run.

While it is captured, no value of a tensor can be read."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """True while torch.export traces a module: what depends on the numbers of a batch must then
    take the way that fits all of them."""
    return torch.compiler.is_exporting()
