"""Grouped-query attention (Ainslie et al. 2023) with rotary positions, hookable throughout.

Tensor names: T ragged rows, K key positions, d d_model, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from .cache.kv_cache import LayerCache
from .config import LayerConfig, ModelConfig
from .gradients import recording
from .hooks.registry import bits, in_graph, same_bits
from .hooks.weight_views import AttentionWeights
from .layers import Linear, RMSNorm
from .ops.interface import Ops
from .run import Run

_INPUTS = ("hook_q_input", "hook_k_input", "hook_v_input")


class Attention(AttentionWeights, nn.Module):
    """One attention sublayer, from the residual stream to its output before any post norm."""

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        projections: dict[str, Linear],
        head_norms: dict[str, RMSNorm],
    ) -> None:
        """`projections` holds q, k, v and o; `head_norms` q and k, or nothing."""
        super().__init__()
        self.config = config
        self.layer: LayerConfig = config.layers[index]
        self.settings = config.attention_of(self.layer)
        self.index = index
        self.block = f"blocks.{index}"
        self.address = f"blocks.{index}.attn"
        self.heads = {
            "q": config.n_heads,
            "k": config.n_key_value_heads,
            "v": config.n_key_value_heads,
        }
        self.q, self.k, self.v, self.o = (projections[name] for name in "qkvo")
        self.q_norm, self.k_norm = head_norms.get("q"), head_norms.get("k")

    def forward(self, resid_Td: torch.Tensor, ln1: RMSNorm, run: Run) -> torch.Tensor:
        z_THh = self.mix(*self._project(resid_Td, ln1, run), run)
        z_THh, of_heads_THh = run.ops.fork(z_THh, 2)
        attn_out: torch.Tensor = self.o(z_THh.flatten(1), run)
        if run.wants(f"{self.address}.hook_result"):
            attn_out = self._hook_result(of_heads_THh, attn_out, run)
        return attn_out

    def mix(
        self, q_THh: torch.Tensor, k_TGh: torch.Tensor, v_TGh: torch.Tensor, run: Run
    ) -> torch.Tensor:
        """z [T, H, h] from the projections: head norms, RoPE, the KV cache, attention."""
        if self.q_norm is not None and self.k_norm is not None:
            q_THh, k_TGh = self.q_norm(q_THh, run), self.k_norm(k_TGh, run)
        q_THh = run.hook(f"{self.address}.hook_rot_q", self._rotate("q", q_THh, run))
        k_TGh = run.hook(f"{self.address}.hook_rot_k", self._rotate("k", k_TGh, run))
        cache = run.cache.layer(self.index)
        run.ops.write_kv(cache, run.batch, k_TGh, v_TGh)
        try:
            z_THh = self._attend(q_THh, cache, run)
        finally:
            cache.written = None  # its graph may hold this pass, and so the cache itself
        return run.hook(f"{self.address}.hook_z", z_THh)

    def _project(
        self, resid_Td: torch.Tensor, ln1: RMSNorm, run: Run
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q [T, H, h], k and v [T, G, h] before RoPE, through ln1 and their hooks."""
        for_heads_Td, resid_Td = run.ops.fork(resid_Td, 2)
        inputs = self._hook_inputs(for_heads_Td, run)
        x_Td = ln1(resid_Td, run)
        if inputs:
            self._check_ln1_unedited(x_Td, resid_Td, ln1, inputs, run)
        projected = []
        linears = (("q", self.q), ("k", self.k), ("v", self.v))
        for (name, linear), into_Td in zip(linears, run.ops.fork(x_Td, 3), strict=True):
            y = linear(into_Td, run).unflatten(1, (self.heads[name], self.config.d_head))
            if name in inputs:
                run.require_original(f"{self.block}.hook_{name}_input", ln1.address, linear.address)
                y = _from_head_inputs(linear, ln1, inputs[name], resid_Td, y, run)
            projected.append(run.hook(f"{self.address}.hook_{name}", y))
        q, k, v = projected
        return q, k, v

    def _rotate(self, name: str, x: torch.Tensor, run: Run) -> torch.Tensor:
        address = f"{self.address}.rope_{name}"
        positions_T = run.batch.positions_T
        return run.op(address, run.ops.rope, x, positions_T, *self.layer.rope)

    def _attend(self, q_THh: torch.Tensor, cache: LayerCache, run: Run) -> torch.Tensor:
        """z [T, H, h]. Scores and pattern are computed beside it where asked for; an edit of either
        goes on through softmax and the sum over values, which fused attention equals bit for bit.
        """
        address, window = f"{self.address}.attention", self.settings.window
        names = (f"{self.address}.hook_attn_scores", f"{self.address}.hook_pattern")
        if run.is_hooked(*names) or run.has_backward(*names):
            pattern, edited = self._hook_pattern(q_THh, cache, run)
            if edited:
                return run.op(
                    address, run.ops.attention_values, pattern, cache, run.batch, window=window
                )
        elif run.wants(*names):
            captured = self._capture_pattern(q_THh, cache, run)
            if captured is not None and not (run.ops.differentiable or run.is_overridden(address)):
                # The same bits as fused attention, which would compute the pattern once more.
                return run.ops.attention_values(captured, cache, run.batch, window=window)
        return run.op(
            address,
            run.ops.attention,
            q_THh,
            cache,
            run.batch,
            scale=self.settings.scale,
            cap=self.settings.cap,
            window=window,
        )

    def _scores(
        self, q_THh: torch.Tensor, cache: LayerCache, run: Run, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What hook_attn_scores shows, of all rows or of some."""
        return run.ops.attention_scores(
            q_THh,
            cache,
            run.batch,
            scale=self.settings.scale,
            cap=self.settings.cap,
            window=self.settings.window,
            rows=rows,
        )

    def _hook_pattern(
        self, q_THh: torch.Tensor, cache: LayerCache, run: Run
    ) -> tuple[torch.Tensor, bool]:
        window = self.settings.window
        scores = self._scores(q_THh, cache, run)
        scores, scored = run.hook_keys(
            f"{self.address}.hook_attn_scores", scores, -math.inf, window
        )
        pattern = run.ops.attention_pattern(scores)
        pattern, edited = run.hook_keys(f"{self.address}.hook_pattern", pattern, 0.0, window)
        return pattern, scored or edited

    def _capture_pattern(
        self, q_THh: torch.Tensor, cache: LayerCache, run: Run
    ) -> torch.Tensor | None:
        """Keeps scores and pattern of the captured rows only; returns a pattern that is whole."""
        rows = run.captured_rows()
        with torch.no_grad():
            scores = self._scores(q_THh, cache, run, rows)
            sliced = rows is not None
            name = f"{self.address}.hook_attn_scores"
            if run.wants(name):
                run.capture_keys(name, scores, -math.inf, sliced=sliced)
            name = f"{self.address}.hook_pattern"
            if run.wants(name):
                pattern = run.ops.attention_pattern(scores)
                run.capture_keys(name, pattern, 0.0, sliced=sliced)
                return None if sliced else pattern
        return None

    def _hook_inputs(self, resid_Td: torch.Tensor, run: Run) -> dict[str, torch.Tensor]:
        """Fires hook_attn_in and hook_{q,k,v}_input; returns those edited, one copy per head.

        Key/value head g takes the copy of hook_attn_in that belongs to the first query head of its
        group.
        """
        if not run.wants(f"{self.block}.hook_attn_in", *(f"{self.block}.{n}" for n in _INPUTS)):
            return {}
        n_heads = self.config.n_heads
        if resid_Td.requires_grad:
            copies = torch.stack(run.ops.fork(resid_Td, n_heads), dim=1)
        else:
            copies = resid_Td[:, None].expand(-1, n_heads, -1)
        attn_in, edited = run.hook_edited(f"{self.block}.hook_attn_in", copies)
        group = n_heads // self.config.n_key_value_heads
        inputs = {}
        for name, start in zip("qkv", run.ops.fork(attn_in, 3), strict=True):
            start = start if name == "q" else start[:, ::group]
            heads, moved = run.hook_edited(f"{self.block}.hook_{name}_input", start)
            if edited or moved:
                inputs[name] = heads
        return inputs

    def _check_ln1_unedited(
        self,
        x_Td: torch.Tensor,
        resid_Td: torch.Tensor,
        ln1: RMSNorm,
        inputs: dict[str, torch.Tensor],
        run: Run,
    ) -> None:
        """Each head's own input has a norm of its own, which an edit of ln1 would not reach."""
        names = (f"{ln1.address}.hook_scale", f"{ln1.address}.hook_normalized")
        recorded = in_graph(*inputs.values())
        if recorded and (run.has_backward(*names) or not run.detached.isdisjoint(names)):
            raise ValueError(
                f"hooks stop the gradients of {ln1.address} or ask for them, and they flow through "
                f"{self.block}'s per-head inputs, which pass it by: each head then has a norm of "
                "its own; hook one of them"
            )
        if not run.is_hooked(*names):
            return
        edited = recorded or any(not _repeats(x_THd, resid_Td) for x_THd in inputs.values())
        if edited and not same_bits(x_Td, run.ops.rms_norm(resid_Td, ln1.weight, ln1.eps)):
            raise ValueError(
                f"hooks edit {ln1.address}, and {self.block}'s per-head inputs are edited or in a "
                "graph: each head then has a norm of its own, which ln1's hooks do not reach; "
                "hook one of them"
            )

    def head_results(self, z_THh: torch.Tensor) -> torch.Tensor:
        """Each head's z through its slice of W_O, [T, H, d]: what hook_result shows."""
        return self._head_results(z_THh, recording(self.o.ops, z_THh))

    def _head_results(self, z_THh: torch.Tensor, ops: Ops) -> torch.Tensor:
        results = []
        for head, z_Th in enumerate(z_THh.unbind(1)):
            alone = torch.zeros(z_THh.shape, dtype=z_THh.dtype, device=z_THh.device)
            alone[:, head] = z_Th
            results.append(ops.linear(alone.flatten(1), self.o.weight))
        return torch.stack(results, dim=1)

    def _hook_result(
        self, z_THh: torch.Tensor, attn_out_Td: torch.Tensor, run: Run
    ) -> torch.Tensor:
        """Fires hook_result.

        Edited rows become the sum of their heads in ascending order, in compute precision, plus the
        bias, rounded once; the others keep the fused sum.
        """
        ops = run.ops
        result_THd = self._head_results(z_THh, ops)
        hooked, edited = run.hook_edited(f"{self.address}.hook_result", result_THd)
        if not edited:
            return attn_out_Td
        run.require_original(f"{self.address}.hook_result", self.o.address)
        first, *others = hooked.unbind(1)
        total = first.to(ops.policy.compute)
        for head_Td in others:
            total = total + head_Td.to(ops.policy.compute)
        if self.o.bias is not None:
            total = total + self.o.bias
        changed_T = (bits(hooked) != bits(result_THd)).flatten(1).any(-1)
        return run.graft(attn_out_Td, total.to(attn_out_Td.dtype), changed_T)


def _repeats(x_THd: torch.Tensor, resid_Td: torch.Tensor) -> bool:
    return same_bits(x_THd, resid_Td[:, None].expand_as(x_THd))


def _from_head_inputs(
    linear: Linear,
    ln1: RMSNorm,
    inputs_THd: torch.Tensor,
    resid_Td: torch.Tensor,
    y_THh: torch.Tensor,
    run: Run,
) -> torch.Tensor:
    """Each head's slice of ln1 and the projection of its own input, where that was edited."""
    heads = []
    for head, input_Td in enumerate(inputs_THd.unbind(1)):
        x_Td = run.ops.rms_norm(input_Td, ln1.weight, ln1.eps)
        y = run.ops.linear(x_Td, linear.weight, linear.bias)
        heads.append(y.view(y_THh.shape)[:, head])
    path_THh = torch.stack(heads, dim=1)
    edited_TH = (bits(inputs_THd) != bits(resid_Td)[:, None]).any(-1)
    return run.graft(y_THh, path_THh, edited_TH)
