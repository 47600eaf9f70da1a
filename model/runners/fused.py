"""Blocks as the compiled core runs them: a range in one call, same kernels, same order.

Tensor names: T ragged rows, K key positions, d d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from ... import _core
from ..block import Block
from ..config import ModelConfig
from ..hooks.registry import has_key_axis, in_graph, masked_value
from ..layers import Linear, RMSNorm
from ..ops.kernels import ACT_CODES, DTYPE_CODES, empty
from ..ops.native import NativeOps
from ..run import Run

TAPS = frozenset(_core.TAPS)
"""Hooks inside a block, by the end of their names, which the one call can leave copies of."""

_TAP_INDEX = {name: index for index, name in enumerate(_core.TAPS)}


def _sums_gradients(run: Run) -> bool:
    return isinstance(run.ops, NativeOps) and run.ops.sums_gradients


class FusedRunner:
    """Ranges of blocks in one call to the core. Blocks in a graph, or whose weights' gradients are
    wanted, are run one by one."""

    taps = TAPS
    taps_ranges = False

    def __init__(self, blocks: Sequence[Block], ops: NativeOps) -> None:
        self._blocks = blocks
        self._rope = ops.rope_tables
        self._config = blocks[0].attn.config
        settings = [
            (block.attn.layer.rope_theta, block.attn.layer.rope_scaling) for block in blocks
        ]
        self._rotaries = list(dict.fromkeys(settings))
        self._rotary_of = [self._rotaries.index(setting) for setting in settings]

    @cached_property
    def _in_core(self) -> Any:
        """Addresses of every block's weights, handed to the core once; the blocks keep them."""
        core = _core.Blocks()
        for block in self._blocks:
            _add(core, block)
        return core

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what holds addresses: a copy has tensors of its own."""
        return {name: x for name, x in vars(self).items() if name != "_in_core"}

    def run(self, start: int, stop: int, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        if in_graph(resid_Td) or _sums_gradients(run):
            for block in self._blocks[start:stop]:
                resid_Td = block(resid_Td, run)
            return resid_Td
        return self._run_fused(start, stop, resid_Td, run)

    def _run_fused(self, start: int, stop: int, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        batch = run.batch
        dtype = run.ops.policy.activation
        taps = self._taps(start, resid_Td.dtype, dtype, run)
        resid_Td = resid_Td.contiguous()
        out_Td = empty(resid_Td.shape, resid_Td.dtype)
        page_table = run.cache.layer(start).page_table
        self._in_core.run(
            start,
            stop,
            resid_Td,
            out_Td,
            out_Td.numel(),
            DTYPE_CODES[resid_Td.dtype],
            DTYPE_CODES[dtype],
            batch.positions_T,
            batch.starts_B1,
            batch.past_B,
            batch.size,
            page_table,
            page_table.shape[1],
            run.cache.pages(),
            [self._table(i, batch.n_keys) for i in range(len(self._rotaries))],
            self._rotary_of,
            [(_TAP_INDEX[name], tap) for name, tap in taps.items()],
            batch.n_keys,
        )
        for name, tap in taps.items():
            full_name = f"blocks.{start}.{name}"
            if has_key_axis(name):
                run.capture_keys(full_name, tap, masked_value(name))
            else:
                run.capture(full_name, tap)
        return out_Td

    def _table(self, index: int, n_positions: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """cos, sin, and how many positions they hold."""
        theta, scaling = self._rotaries[index]
        table = self._rope.upto(theta, self._config.d_head, n_positions, scaling)
        return table.cos, table.sin, table.n_positions

    def _taps(
        self, layer: int, resid_dtype: torch.dtype, dtype: torch.dtype, run: Run
    ) -> dict[str, torch.Tensor]:
        """Room for what is captured inside a block, by the end of its name, in hook order."""
        wanted = run.watch.tapped.get(layer)
        if wanted is None:
            return {}
        n_rows, n_keys = run.batch.n_rows, run.batch.n_keys
        dtypes = dict.fromkeys(_ALWAYS_FP32, torch.float32) | {"hook_resid_mid": resid_dtype}
        return {
            name: empty(
                (n_rows, *_tap_shape(self._config, name, n_keys)),
                dtypes.get(name.rpartition(".")[2], dtype),
            )
            for name in _core.TAPS
            if name in wanted
        }


_ALWAYS_FP32 = ("hook_scale", "hook_normalized", "hook_attn_scores", "hook_pattern")


def _tap_shape(config: ModelConfig, name: str, n_keys: int) -> tuple[int, ...]:
    """The shape of a tap's row."""
    if has_key_axis(name):
        return config.n_heads, n_keys
    if name in ("mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post"):
        return (config.d_mlp,)
    width = 1 if name.endswith("hook_scale") else config.d_head
    if name.startswith(("attn.q_norm", "attn.hook_q", "attn.hook_rot_q", "attn.hook_z")):
        return config.n_heads, width
    if name.startswith("attn."):
        return config.n_key_value_heads, width
    return (1,) if name.endswith("hook_scale") else (config.d_model,)


def _norm(norm: RMSNorm | None) -> torch.Tensor | None:
    return None if norm is None else norm.weight


def _projection(linear: Linear) -> tuple[torch.Tensor, int, int, int, torch.Tensor | None]:
    weight = linear.weight
    return weight.data, weight.format, weight.n, weight.k, linear.bias


def _add(core: Any, block: Block) -> None:
    attn, mlp = block.attn, block.mlp
    config = attn.config
    norms = (
        _norm(block.ln1),
        _norm(block.ln2),
        _norm(block.ln1_post),
        _norm(block.ln2_post),
        _norm(attn.q_norm),
        _norm(attn.k_norm),
    )
    linears = (attn.q, attn.k, attn.v, attn.o, mlp.gate, mlp.up, mlp.down)
    core.add(
        norms,
        [_projection(linear) for linear in linears],
        (config.d_model, config.n_heads, config.n_key_value_heads, config.d_head, config.d_mlp),
        attn.settings.window or 0,
        config.eps,
        attn.settings.scale,
        attn.settings.cap or 0.0,
        ACT_CODES[config.act_fn],
    )
