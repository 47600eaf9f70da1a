"""Blocks on a GPU in few launches: norms with the residual adds before them, rotation with the
write to the cache, projections of one input side by side. Where every sequence has one new row,
ranges of blocks are CUDA graphs.

Tensor names: T ragged rows, d d_model, H heads, G key/value heads, h d_head, m d_mlp.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from ..block import Block
from ..cache.kv_cache import KVCache, LayerCache
from ..hooks.registry import in_graph
from ..layers import RMSNorm
from ..ops.cuda.ops import CudaOps
from ..ops.cuda.sequences import Sequences
from ..run import Run
from .cuda_graphs import SpanGraphs


class CudaRunner:
    """The operations of `Block` in the same order, fused; watched blocks run as they are."""

    taps: frozenset[str] = frozenset()

    def __init__(self, blocks: Sequence[Block], ops: CudaOps) -> None:
        self._blocks = blocks
        self._ops = ops
        self._graphs = SpanGraphs(ops.kernels)

    def run(self, start: int, stop: int, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        if in_graph(resid_Td):
            for block in self._blocks[start:stop]:
                resid_Td = block(resid_Td, run)
            return resid_Td
        batch, cache = run.batch, run.cache
        first = cache.layer(start)
        where = Sequences.on(self._ops.device, first.page_table, batch.starts_B1, batch.past_B)
        body = partial(self._span, start, stop, cache)
        if where.longest > 1:
            return body(resid_Td, where)
        pages = first.k_pages.data_ptr(), first.v_pages.data_ptr(), first.k_pages.shape
        return self._graphs.run((start, stop, pages), body, resid_Td, where)

    def _span(
        self, start: int, stop: int, cache: KVCache, resid_Td: torch.Tensor, where: Sequences
    ) -> torch.Tensor:
        for block in self._blocks[start:stop]:
            resid_Td = self._block(block, resid_Td, cache.layer(block.attn.index), where)
        return resid_Td

    def _block(
        self, block: Block, resid_Td: torch.Tensor, cache: LayerCache, where: Sequences
    ) -> torch.Tensor:
        ops, mlp = self._ops, block.mlp
        z_Tn = self._attend(block, self._normed(block.ln1, resid_Td), cache, where)
        attn_out = ops.linear(z_Tn, block.attn.o.weight, block.attn.o.bias)
        if block.ln1_post is not None:
            attn_out = self._normed(block.ln1_post, attn_out)
        ln2 = block.ln2
        normed, resid_mid = ops.kernels.add_rms_norm(resid_Td, attn_out, ln2.weight, ln2.eps)
        gate_up = ops.kernels.linears(normed, [(x.weight, x.bias) for x in (mlp.gate, mlp.up)])
        post = ops.kernels.gated_act(mlp.act_fn, *gate_up.chunk(2, dim=1))
        mlp_out = ops.linear(post, mlp.down.weight, mlp.down.bias)
        if block.ln2_post is not None:
            mlp_out = self._normed(block.ln2_post, mlp_out)
        return ops.add(resid_mid, mlp_out)

    def _attend(
        self, block: Block, normed_Td: torch.Tensor, cache: LayerCache, where: Sequences
    ) -> torch.Tensor:
        """z [T, H h]: queries, keys and values of a row stand behind one another until then."""
        attn, kernels, layer = block.attn, self._ops.kernels, block.attn.layer
        heads, d_head = attn.config.n_heads, attn.config.d_head
        qkv = kernels.linears(normed_Td, [(x.weight, x.bias) for x in (attn.q, attn.k, attn.v)])
        if attn.q_norm is not None and attn.k_norm is not None:
            kv_heads = attn.config.n_key_value_heads
            kernels.norm_heads(qkv, 0, heads, attn.q_norm.weight, attn.q_norm.eps)
            kernels.norm_heads(qkv, heads, kv_heads, attn.k_norm.weight, attn.k_norm.eps)
        table = self._ops.rope_tables.upto(layer.rope_theta, d_head, where.keys, layer.rope_scaling)
        pages = cache.k_pages, cache.v_pages
        kernels.rope_kv_write(
            qkv, table.cos, table.sin, *pages, where.table, where.starts_B1, where.past_B
        )
        q_THh = qkv[:, : heads * d_head].view(-1, heads, d_head)
        settings = attn.settings
        z_THh, _ = kernels.attend(
            q_THh, *pages, where, settings.scale, settings.window or 0, settings.cap or 0.0
        )
        return z_THh.flatten(1)

    def _normed(self, norm: RMSNorm, x: torch.Tensor) -> torch.Tensor:
        return self._ops.rms_norm(x, norm.weight, norm.eps)
