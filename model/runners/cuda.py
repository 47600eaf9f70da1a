"""Blocks on a GPU in few launches: norms with the residual adds before them, rotation with the
write to the cache, projections of one input side by side. Where every sequence has one new row,
ranges of blocks, and what is captured from them, are CUDA graphs.

Tensor names: T ragged rows, d d_model, H heads, G key/value heads, h d_head, m d_mlp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..block import Block
from ..cache.kv_cache import LayerCache
from ..hooks.registry import BLOCK_NAMES, has_key_axis, in_graph, layer_of, masked_value
from ..layers import RMSNorm
from ..ops.cuda.ops import CudaOps, CudaStepOps
from ..ops.cuda.sequences import Sequences
from ..run import Run
from .cuda_graphs import Captured, SpanGraphs

TAPS = frozenset(name for name in BLOCK_NAMES if name != "attn.hook_result")
"""Hooks that a range leaves copies of, but for results of heads, which open their block."""


@dataclass
class _Taps(Run):
    """The pass as a graph runs part of it: what it captures stays rows."""

    rows: dict[str, torch.Tensor] = field(default_factory=dict)

    def capture(self, name: str, x: torch.Tensor) -> None:
        self.rows[name] = x

    def capture_keys(
        self, name: str, x_THK: torch.Tensor, fill: float, *, sliced: bool = False
    ) -> None:
        self.rows[name] = x_THK


class CudaRunner:
    """The operations of `Block` in the same order, fused; tapped and watched blocks run as they
    are, tapped ones inside the graphs."""

    taps = TAPS
    taps_ranges = True

    def __init__(self, blocks: Sequence[Block], ops: CudaOps) -> None:
        self._blocks = blocks
        self._ops = ops
        self._graphs = SpanGraphs(ops.kernels)

    def run(self, start: int, stop: int, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        if in_graph(resid_Td):
            return self._span(start, stop, None, resid_Td, run)
        batch, first = run.batch, run.cache.layer(start)
        where = Sequences.on(self._ops.device, first.page_table, batch.starts_B1, batch.past_B)
        if where.longest > 1:
            return self._span(start, stop, where, resid_Td, run)
        return self._step(start, stop, where, resid_Td, run)

    def _step(
        self, start: int, stop: int, where: Sequences, resid_Td: torch.Tensor, run: Run
    ) -> torch.Tensor:
        """A range of blocks as a graph, and what it captured."""

        def body(resid_Td: torch.Tensor, where: Sequences) -> tuple[torch.Tensor, Captured]:
            taps = _Taps(CudaStepOps(self._ops, where), run.batch, run.cache, run.watch)
            return self._span(start, stop, where, resid_Td, taps), taps.rows

        first = run.cache.layer(start)
        pages = first.k_pages.data_ptr(), first.v_pages.data_ptr(), first.k_pages.shape
        names = frozenset(name for name in run.watch.captures.names if start <= _layer(name) < stop)
        resid_Td, captured = self._graphs.run((start, stop, pages, names), body, resid_Td, where)
        for name, x in captured.items():
            if has_key_axis(name):
                run.capture_keys(name, x[..., : run.batch.n_keys], masked_value(name))
            else:
                run.capture(name, x)
        return resid_Td

    def _span(
        self, start: int, stop: int, where: Sequences | None, resid_Td: torch.Tensor, run: Run
    ) -> torch.Tensor:
        """The blocks, and the hooks between them; none is fused where there is no `where`."""
        for layer in range(start, stop):
            block = self._blocks[layer]
            if layer > start:
                resid_Td = run.hook(f"blocks.{layer}.hook_resid_pre", resid_Td)
            if where is None or layer in run.watch.tapped:
                resid_Td = block(resid_Td, run)
            else:
                resid_Td = self._block(block, resid_Td, run.cache.layer(layer), where)
            if layer < stop - 1:
                resid_Td = run.hook(f"blocks.{layer}.hook_resid_post", resid_Td)
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


def _layer(name: str) -> int:
    """The block of a hook, -1 outside the blocks."""
    layer = layer_of(name)
    return -1 if layer is None else layer
