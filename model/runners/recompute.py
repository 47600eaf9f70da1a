"""Blocks that keep only their input for backward, and are computed again when it comes
(Chen et al. 2016, Training deep nets with sublinear memory cost)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.checkpoint import checkpoint

from ..block import Block
from ..cache.kv_cache import KVCache
from ..hooks.captures import Captures
from ..hooks.registry import in_graph
from ..run import Run, Watch


def may_recompute(layer: int, resid_Td: torch.Tensor, run: Run) -> bool:
    """Whether a block's activations can be had again from its input alone.

    Not where functions of the user's stand inside, which would run twice, nor where the block reads
    a cached prefix.
    """
    return in_graph(resid_Td) and layer not in run.watch.edited and not any(run.batch.past)


def run_recomputed(block: Block, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
    """The block, whose intermediates are dropped and computed again in backward."""
    context = run

    def forward(x_Td: torch.Tensor) -> torch.Tensor:
        nonlocal context
        now, context = context, _again(run)
        return block(x_Td, now)  # type: ignore[no-any-return]

    result: torch.Tensor = checkpoint(
        forward, resid_Td, use_reentrant=False, preserve_rng_state=False
    )
    return result


def _again(run: Run) -> Run:
    """The context of a second time: captures go nowhere, keys into a cache of its own."""
    captures = Captures(run.watch.captures.names, run.watch.captures.pos_slice)
    watch = Watch({}, run.watch.points, {}, captures, frozenset(), run.watch.backward)
    cache = KVCache(
        run.cache.config, run.batch.size, run.cache.dtype, run.batch.device, one_layer=True
    )
    cache.reserve(run.batch)
    return replace(run, watch=watch, cache=cache)
