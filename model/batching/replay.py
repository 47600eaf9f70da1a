"""Looks again at tokens whose keys and values are kept, for whoever watches them."""

from __future__ import annotations

import torch

from ..cache.page_pool import pages_of
from ..cache.sequence_pages import SequencePages
from ..hooks.captures import Captures
from ..hooks.registry import depth
from .batched_model import ReplayingModel
from .row import Row


def recomputed_from(row: Row, n_layers: int) -> int | None:
    """Returns the token from which on a row takes nothing from the cache; None where it may take
    all.

    What is watched above the last block but one costs a whole pass, which writes keys and values
    anyhow; anything below is looked at again by a pass that ends there.
    """
    start = row.observed_from
    return start if start is not None and depth(row.observed_names, n_layers) == n_layers else None


def has_room(pages: SequencePages, n: int) -> bool:
    """Whether there are pages to look at n tokens again."""
    return pages.pool.can_take(pages_of(n) + 1)


def replay(
    model: ReplayingModel, pages: SequencePages, row: Row, n: int
) -> dict[str, torch.Tensor]:
    """Returns what a row's watchers see of the next n tokens that they have not seen, [1, n, ...]
    by hook name, with the bits of the pass that wrote their keys and values."""
    held, start = row.held, row.observed_from
    assert held is not None
    assert start is not None
    captures = Captures(row.observed_names)
    tokens_1P = torch.tensor([row.tokens[start : start + n]], dtype=torch.int64, device="cpu")
    with pages.before(held, start) as kv_cache:
        model.forward_captures(tokens_1P, kv_cache, captures)
    return captures.found
