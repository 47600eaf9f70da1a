"""The operations in plain PyTorch: the reference. Readable, differentiable, on any device.

Sums run in torch's order, so bits may depend on shapes and threads; the rounding points are those
of docs/numerics.md. Tensor names: T ragged rows, K key positions, H heads, G key/value heads,
R = H / G heads that share a key, h d_head, d d_model, m d_mlp, n outputs of a linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..batch import RaggedBatch
from ..cache.kv_cache import LayerCache
from ..config import ActFn, ModelConfig
from ..rope.scaling import RopeScaling, rotary_frequencies
from ..weights.checkpoint import StoredMatrix
from .policy import Policy
from .whole import WholeMatrices


class TorchOps(WholeMatrices):
    """`Ops` on torch tensors: weights are Parameters, gradients flow through everything."""

    differentiable = True

    def __init__(self, policy: Policy, device: torch.device) -> None:
        self.policy = policy
        self.device = device

    def adopt(self, config: ModelConfig) -> None:
        """Every model can be computed."""

    def weight(self, matrix: StoredMatrix) -> nn.Parameter:
        return nn.Parameter(matrix.dequantize().to(self.device, self.policy.weight))

    def storage(self, weight: torch.Tensor) -> tuple[str, int]:
        return str(weight.dtype).removeprefix("torch."), weight.nbytes

    def vector(self, vector: torch.Tensor) -> torch.Tensor:
        return nn.Parameter(vector.to(self.device, self.policy.compute))

    def embed(self, tokens_T: torch.Tensor, weight: torch.Tensor, scale: float) -> torch.Tensor:
        return (self._widen(F.embedding(tokens_T, weight)) * scale).to(self.policy.residual)

    def linear(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        y = F.linear(self._widen(x), self._widen(weight), bias)
        return y.to(out_dtype or self.policy.activation)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self._widen(x) + self._widen(y)).to(x.dtype)

    def fork(self, x: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
        return (x,) * n

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def rearrange(
        self,
        x: torch.Tensor,
        there: Callable[[torch.Tensor], torch.Tensor],
        back: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        return there(x)

    def rms_scale(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        return (self._widen(x).square().mean(-1, keepdim=True) + eps).sqrt()

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self._widen(x) / scale

    def norm_weight(self, normalized: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self._round(normalized * weight)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return self.norm_weight(self.normalize(x, self.rms_scale(x, eps)), weight)

    def rope(
        self,
        x_THh: torch.Tensor,
        positions_T: torch.Tensor,
        theta: float,
        scaling: RopeScaling | None = None,
    ) -> torch.Tensor:
        # Angles in fp64 whatever the policy: in fp32 they are wrong by 0.011 rad at position 200K.
        n_positions = int(positions_T.max()) + 1
        found = rotary_frequencies(theta, x_THh.shape[-1], scaling, n_positions)
        inv_freq = torch.tensor(found.inv_freq, dtype=torch.float64, device=x_THh.device)
        angle = positions_T.double()[:, None, None] * inv_freq
        cos = self._widen(angle.cos() * found.attention_factor)
        sin = self._widen(angle.sin() * found.attention_factor)
        x1, x2 = self._widen(x_THh).chunk(2, dim=-1)
        return self._round(torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1))

    def write_kv(
        self,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        k_TGh: torch.Tensor,
        v_TGh: torch.Tensor,
    ) -> None:
        layer_cache.write(batch, k_TGh, v_TGh)
        layer_cache.written = (k_TGh, v_TGh)

    def attention(
        self,
        q_THh: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        scale: float,
        cap: float | None,
        window: int | None,
    ) -> torch.Tensor:
        scores = self.attention_scores(
            q_THh, layer_cache, batch, scale=scale, cap=cap, window=window
        )
        pattern = self.attention_pattern(scores)
        return self.attention_values(pattern, layer_cache, batch, window=window)

    def attention_scores(
        self,
        q_THh: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        scale: float,
        cap: float | None,
        window: int | None,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        scores = []
        for b in range(batch.size):
            k, _ = self._keys_values(layer_cache, batch, b)
            q = self._widen(q_THh[batch.starts[b] : batch.starts[b + 1]])
            q = q.reshape(q.shape[0], k.shape[1], -1, q.shape[2])
            s_THK = torch.einsum("tgrh,kgh->tgrk", q, k).flatten(1, 2) * scale
            if cap is not None:
                s_THK = self.soft_cap(s_THK, cap)
            scores.append(F.pad(s_THK, (0, batch.n_keys - k.shape[0])))
        masked = torch.cat(scores).masked_fill(~batch.visible_THK(window), -math.inf)
        return masked if rows is None else masked[rows]

    def attention_pattern(self, scores_THK: torch.Tensor) -> torch.Tensor:
        # The maximum is clamped and the sum never 0, so that rows of -inf give zeros, not NaN.
        smallest = torch.finfo(scores_THK.dtype).min
        e = (scores_THK - scores_THK.detach().amax(-1, keepdim=True).clamp(min=smallest)).exp()
        total = e.sum(-1, keepdim=True)
        return e * (1 / total.masked_fill(total == 0, 1))

    def attention_values(
        self,
        pattern_THK: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        window: int | None,
    ) -> torch.Tensor:
        z = []
        for b in range(batch.size):
            _, v = self._keys_values(layer_cache, batch, b)
            pattern = pattern_THK[batch.starts[b] : batch.starts[b + 1], :, : v.shape[0]]
            pattern = pattern.reshape(pattern.shape[0], v.shape[1], -1, v.shape[0])
            z.append(torch.einsum("tgrk,kgh->tgrh", pattern, v).flatten(1, 2))
        return self._round(torch.cat(z))

    def gated_act(self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate = self._widen(gate)
        act = F.silu(gate) if kind == "silu" else F.gelu(gate, approximate="tanh")
        return self._round(act * self._widen(up))

    def soft_cap(self, x: torch.Tensor, cap: float) -> torch.Tensor:
        return cap * torch.tanh(x / cap)

    def _keys_values(
        self, layer_cache: LayerCache, batch: RaggedBatch, b: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values of sequence b: the past from its pages, the new ones in the graph."""
        assert layer_cache.written is not None, "write_kv comes before attention"
        new = slice(batch.starts[b], batch.starts[b + 1])
        k, v = (self._widen(x[new]) for x in layer_cache.written)
        if batch.past[b]:
            past_k, past_v = layer_cache.gather(b, batch.past[b])
            k = torch.cat([self._widen(past_k), k])
            v = torch.cat([self._widen(past_v), v])
        return k, v

    def _widen(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.policy.compute)

    def _round(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.policy.activation)
