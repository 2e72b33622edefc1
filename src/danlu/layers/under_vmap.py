"""Whether a forward pass runs for many models at once (torch.func.vmap).

Functions with a hand-written gradient have no rule for that and step aside for torch's own operators, to the same numbers.
"""

from __future__ import annotations

import torch


def under_vmap() -> bool:
    """Whether the code that asks is run by torch.func.vmap."""
    return bool(torch._C._are_functorch_transforms_active())
