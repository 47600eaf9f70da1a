"""Blocks of a model that is spread over ranks, with as few exchanges as there can be.

Tensor names: T ragged rows, d d_model, H heads, G key/value heads, h d_head, m d_mlp, r the columns
of one rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..block import MLP, Block
from ..parallel.sharded_ops import ShardedOps
from ..run import Run


class ShardedRunner:
    """Four exchanges a block: q with k and v, o, the gated product, down."""

    taps: frozenset[str] = frozenset()
    taps_ranges = False

    def __init__(self, blocks: Sequence[Block], ops: ShardedOps) -> None:
        self._blocks = blocks
        self._ops = ops

    def run(self, start: int, stop: int, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        for block in self._blocks[start:stop]:
            resid_Td = self._run_block(block, resid_Td, run)
        return resid_Td

    def _run_block(self, block: Block, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        ops, attn, mlp = self._ops, block.attn, block.mlp
        x_Td = block.ln1(resid_Td, run)
        qkv = ops.gather(
            [ops.linear_slice(x_Td, p.weight, p.bias) for p in (attn.q, attn.k, attn.v)],
            [p.weight.shards for p in (attn.q, attn.k, attn.v)],
        )
        q_THh, k_TGh, v_TGh = (y.view(len(y), -1, attn.config.d_head) for y in qkv)
        z_THh = attn.mix(q_THh, k_TGh, v_TGh, run)
        attn_out = attn.o(z_THh.flatten(1), run)
        if block.ln1_post is not None:
            attn_out = block.ln1_post(attn_out, run)
        resid_Td = ops.add(resid_Td, attn_out)
        mlp_out = mlp.down(self._gated(mlp, block.ln2(resid_Td, run)), run)
        if block.ln2_post is not None:
            mlp_out = block.ln2_post(mlp_out, run)
        return ops.add(resid_Td, mlp_out)

    def _gated(self, mlp: MLP, x_Td: torch.Tensor) -> torch.Tensor:
        """act(gate) * up [T, m]: a rank has the same columns of both, so it takes their product."""
        ops = self._ops
        gate_Tr, up_Tr = (ops.linear_slice(x_Td, p.weight, p.bias) for p in (mlp.gate, mlp.up))
        post_Tr = ops.gated_act(mlp.act_fn, gate_Tr, up_Tr)
        return ops.gather([post_Tr], [mlp.gate.weight.shards])[0]
