"""Silent excess precision: shards that round their logits to bf16 beside shards that do not.

Tensor names: B batch, V the shard's slice of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch


def excess_precision(
    shards: Sequence[torch.Tensor], rounded: Collection[int]
) -> list[torch.Tensor]:
    """Logits as ranks hold them of which only some round to bf16, as the program says they all do.

    A compiler that may keep excess precision (XLA: `xla_allow_excess_precision`) drops the rounding
    wherever an operation and its successor fuse, so what is compared differs between ranks.

    Args:
        shards: fp32 [B, V_i] of each rank.
        rounded: Indices of the shards that do round.

    Returns:
        fp32 [B, V_i] of each rank; those not rounded are the given tensors.

    Raises ValueError for a shard that is not there.
    """
    strangers = [i for i in rounded if not 0 <= i < len(shards)]
    if strangers:
        raise ValueError(f"rounded: there is no shard {strangers[0]} among {len(shards)}")
    return [
        shard.to(torch.bfloat16).float() if i in rounded else shard
        for i, shard in enumerate(shards)
    ]
