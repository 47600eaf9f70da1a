"""One model, whole and over N ranks that are threads, and what must be equal.

Tensor names: B batch, P padded positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import bitlens
import torch
from bitlens.model.parallel import Group, run_in_threads
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from invariance.subjects import WIDE
from support.random_models import random_checkpoint

R = TypeVar("R")

SIZES = (1, 2, 3, 4, 5, 8)
"""How many ranks: those that divide nothing here are among them."""
TIMEOUT = 60.0


@functools.cache
def checkpoint_of(architecture: str) -> Checkpoint:
    return random_checkpoint(architecture, **WIDE)


@functools.cache
def whole(architecture: str, dtype: str = "fp32") -> HookedTransformer:
    return bitlens.load(checkpoint_of(architecture), dtype=dtype)


def on_ranks(
    size: int,
    fn: Callable[[HookedTransformer], R],
    architecture: str = "llama",
    dtype: str = "fp32",
) -> list[R]:
    """fn(model) on every rank of a model over `size` threads."""

    def run(group: Group) -> R:
        return fn(bitlens.load(checkpoint_of(architecture), dtype=dtype, group=group))

    return run_in_threads(size, run, timeout=TIMEOUT)


def draw_batch(d_vocab: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three sequences of other lengths, padded on the left: tokens and mask [B, P]."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BP = torch.randint(d_vocab, (3, 9), generator=generator)
    mask_BP = torch.ones_like(tokens_BP)
    mask_BP[1, :4] = 0
    mask_BP[2, :8] = 0
    return tokens_BP, mask_BP


def same(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Bit for bit."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    return torch.equal(x.contiguous().view(torch.uint8), y.contiguous().view(torch.uint8))
