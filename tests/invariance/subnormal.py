"""Models whose intermediates are subnormal: one kernel that flushed them would move the logits."""

from __future__ import annotations

import functools

import torch
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from invariance.subjects import WIDE
from support.random_models import random_checkpoint

AFTER_NORMS = ("attn.q", "attn.k", "attn.v", "mlp.gate", "mlp.up")
DOWN, UP = 2.0**-127, 2.0**122


def subnormal_checkpoint(architecture: str) -> Checkpoint:
    """Weights of size 2^-131 and values of size 2^-127, brought back by weights of size 2^118."""
    checkpoint = random_checkpoint(architecture, **WIDE)
    factors = {
        "blocks.0.attn.v.weight": DOWN,
        "blocks.0.attn.v.bias": DOWN,
        "blocks.0.attn.o.weight": UP,
        "blocks.0.mlp.up.weight": DOWN,
        "blocks.0.mlp.down.weight": UP,
        # Scores far apart: their exponentials are subnormal, too.
        "blocks.2.attn.q.weight": 30.0,
        "blocks.2.attn.q_norm.weight": 30.0 if not checkpoint.config.norm_offset else 300.0,
    }
    if not checkpoint.config.norm_offset:  # 1 + w is never subnormal
        factors |= {"blocks.1.ln1.weight": DOWN, "blocks.1.ln2.weight": DOWN}
        factors |= {f"blocks.1.{name}.weight": UP for name in AFTER_NORMS}
    tensors = checkpoint.reader.tensors  # type: ignore[attr-defined]
    for name in factors.keys() & tensors.keys():
        tensors[name] *= factors[name]
    return checkpoint


@functools.cache
def subnormal_model(architecture: str, dtype: str, backend: str = "native") -> HookedTransformer:
    return load(subnormal_checkpoint(architecture), dtype=dtype, backend=backend)  # type: ignore[arg-type]


def count_subnormal(x: torch.Tensor) -> int:
    """How many values of x are subnormal, by their bits: arithmetic might flush them."""
    wide = x.float().view(torch.int32) if x.dtype != torch.float32 else x.view(torch.int32)
    return int((((wide & 0x7F800000) == 0) & ((wide & 0x007FFFFF) != 0)).sum())


def switch_flush_on() -> None:
    """torch's flush-to-zero for this thread, shown to be in force."""
    assert float(torch.tensor([1e-40]).mul(1.0)) != 0.0
    assert torch.set_flush_denormal(True)
    assert float(torch.tensor([1e-40]).mul(1.0)) == 0.0
    assert float(torch.tensor([1e-20]).mul(1e-20)) == 0.0
