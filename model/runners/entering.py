"""Checks the residual stream with which a pass begins at a block, in place of tokens."""

from __future__ import annotations

from typing import Any, Literal

import torch

from ..cache.kv_cache import KVCache
from ..config import ModelConfig

ReturnType = Literal["logits", "loss", "both"] | None


def check_entering(
    resid_BPd: Any,
    kv_cache: KVCache | None,
    return_type: ReturnType,
    config: ModelConfig,
    dtype: torch.dtype,
) -> None:
    """Raises ValueError for what a pass that begins at a block cannot take or give."""
    found = (
        (resid_BPd.dtype, list(resid_BPd.shape))
        if isinstance(resid_BPd, torch.Tensor)
        else type(resid_BPd).__name__
    )
    if (
        not isinstance(resid_BPd, torch.Tensor)
        or (resid_BPd.ndim, resid_BPd.dtype) != (3, dtype)
        or resid_BPd.shape[-1] != config.d_model
    ):
        raise ValueError(
            f"start_at_layer: begins with the residual stream, {dtype} [batch, positions, "
            f"{config.d_model}], in place of tokens; got {found}"
        )
    if kv_cache is not None:
        raise ValueError("start_at_layer: would leave the lower layers of kv_cache unwritten")
    if return_type in ("loss", "both"):
        raise ValueError(
            "start_at_layer: the residual stream does not say which tokens come next, so it "
            'has no loss; take return_type="logits"'
        )
