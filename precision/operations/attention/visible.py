"""The keys that a query sees."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def visible_keys(
    n_queries: int, n_keys: int, *, causal: bool, window: int | None, past: int
) -> Tensor:
    """Returns the keys each query sees, bool [queries, keys]; query i stands at past + i."""
    distance = torch.arange(n_queries)[:, None] + past - torch.arange(n_keys)
    visible = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        visible &= distance < window
    return visible
