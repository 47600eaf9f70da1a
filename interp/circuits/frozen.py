"""One pass of a model with its attention patterns and norm scales kept, and gradients through them.

With patterns and scales frozen, and every MLP's output taken as given, the residual stream is a
linear function of the embeddings and of what the MLPs wrote. `FrozenPass` propagates directions
back through it: norms, W_O, patterns, W_V; nothing is stored for it but patterns and scales.

Shapes: T positions, B directions, H heads, G key/value heads, h d_head, d d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...model.hooks.weight_views import AttentionWeights
from ...model.layers import RMSNorm
from ...model.ops.kernels import linear
from ...model.ops.packed import PackedWeight, pack
from ...model.transformer import HookedTransformer
from ...model.weights.checkpoint import Format, StoredMatrix
from ...policies import GRADIENTS

NO_FROZEN_PASS = (
    "trace: {}: its patterns and norm scales cannot be frozen; load it without a group, as "
    + " or ".join(GRADIENTS)
)


@dataclass(frozen=True, eq=False)
class _AttentionMaps:
    """The frozen linear maps of one attention layer, as backward needs them.

    Attributes:
        out: W_O as [H * h, d] rows: from d to heads.
        value: W_V as [d, G * h] rows: from key/value heads to d.
        b_O: [d]; None where the model has none.
        b_V: [G * h]; None where the model has none.
    """

    out: PackedWeight
    value: PackedWeight
    b_O: torch.Tensor | None
    b_V: torch.Tensor | None


def check_freezable(model: HookedTransformer) -> None:
    """Raises ValueError for a model over several ranks, or under a stepwise policy."""
    if model.group is not None:
        raise ValueError(NO_FROZEN_PASS.format("the model is spread over several ranks"))
    if model.ops.policy.stepwise:
        raise ValueError(NO_FROZEN_PASS.format(f"the model runs under {model.ops.policy.name}"))


class Patterns:
    """Attention patterns of a prompt, [H, T, T] a layer: kept, or computed again from the residual
    stream [1, T, d] before their block when asked for."""

    def __init__(
        self,
        model: HookedTransformer,
        kept: dict[int, torch.Tensor],
        streams: dict[int, torch.Tensor],
    ) -> None:
        self._model, self._kept, self._streams = model, kept, streams

    def __getitem__(self, layer: int) -> torch.Tensor:
        if layer in self._kept:
            return self._kept[layer]
        name = pattern_hook(layer)
        with torch.no_grad():
            _, cache = self._model.run_with_cache(
                self._streams[layer],
                name,
                return_type=None,
                start_at_layer=layer,
                stop_at_layer=layer + 1,
            )
        return cache[name][0].float()


def pattern_hook(layer: int) -> str:
    """Returns the name of a layer's patterns."""
    return f"blocks.{layer}.attn.hook_pattern"


class FrozenPass:
    """The activations that one prompt leaves in a model.

    Attributes:
        tokens: int64 [1, T].
        embed: [T, d].
        read: What features read, [T, d] by layer.
        written: What MLPs wrote, [T, d] by layer.
        final: The residual stream after the last block at the last position, [d].
        patterns: By layer.
    """

    def __init__(
        self,
        model: HookedTransformer,
        tokens: torch.Tensor,
        read_hooks: dict[int, str],
        write_hooks: dict[int, str],
        *,
        keep_patterns: bool = True,
    ) -> None:
        """Runs the model once. Raises ValueError where it cannot be frozen."""
        check_freezable(model)
        self.model, self.tokens = model, tokens
        n = model.config.n_layers
        self._sandwich = model.config.sandwich_norms
        norms = ["ln1", "ln2", *(["ln1_post", "ln2_post"] if self._sandwich else [])]
        scales = [f"blocks.{i}.{norm}.hook_scale" for i in range(n) for norm in norms]
        # Either the patterns, or what each can be computed again from.
        from_name = pattern_hook if keep_patterns else "blocks.{}.hook_resid_pre".format
        patterns = {i: from_name(i) for i in range(n)}
        last = f"blocks.{n - 1}.hook_resid_post"
        wanted = {"hook_embed", last, *scales, *patterns.values()}
        wanted |= set(read_hooks.values()) | set(write_hooks.values())
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens, sorted(wanted), return_type=None)
        self.embed = cache["hook_embed"][0].float()
        self.read = {i: cache[name][0].float() for i, name in read_hooks.items()}
        self.written = {i: cache[name][0].float() for i, name in write_hooks.items()}
        self.final = cache[last][0, -1]
        self._scales = {name: cache[name][0].float() for name in scales}
        if keep_patterns:
            kept = {i: cache[name][0].float() for i, name in patterns.items()}
            self.patterns = Patterns(model, kept, {})
        else:
            self.patterns = Patterns(model, {}, {i: cache[name] for i, name in patterns.items()})
        self._maps: dict[int, _AttentionMaps] = {}

    @property
    def n_positions(self) -> int:
        return self.tokens.shape[1]

    def scale(self, layer: int, norm: str) -> torch.Tensor:
        """Returns a norm's scales, [T, 1]."""
        return self._scales[f"blocks.{layer}.{norm}.hook_scale"]

    def scales(self) -> list[tuple[str, torch.Tensor]]:
        """Returns the hook of every norm scale of the blocks, and what it held, [T, 1]; of the
        final norm the last position's alone is known."""
        final = self.model.ops.rms_scale(
            self.model.ops.widen(self.final[None]), self.model.ln_final.eps
        )
        return [*self._scales.items(), ("ln_final.hook_scale", final.float())]

    def from_read(self, layer: int, hook: str, g: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Returns the gradient of resid_mid [..., d], from that of what features read, at positions
        `at` [...]."""
        if hook in ("hook_mlp_in", "hook_resid_mid"):
            return g
        if hook == "mlp.hook_in":
            g = g * self._norm(layer, "ln2").w.float()
        return g / self.scale(layer, "ln2")[at]

    def to_written(self, layer: int, hook: str, g_BTd: torch.Tensor) -> torch.Tensor:
        """Returns the gradient of what an MLP wrote, from that of the residual stream after it."""
        if hook == "hook_mlp_out" or not self._sandwich:
            return g_BTd
        return self._post(layer, "ln2_post", g_BTd)

    def through_attention(
        self, layer: int, g_BTd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the gradient of resid_pre, from that of resid_mid, and what biases add, [B].

        Positions from the gradient's length on are left out: none of theirs reaches it.
        """
        maps = self._attention(layer)
        n_batch, n, d = g_BTd.shape
        g_out = self._post(layer, "ln1_post", g_BTd) if self._sandwich else g_BTd
        dz = _times(g_out.reshape(-1, d), maps.out)
        dv = self._through_pattern(layer, dz.view(n_batch, n, -1))
        dx = _times(dv.reshape(n_batch * n, -1), maps.value).view(n_batch, n, d)
        bias = torch.zeros(n_batch, dtype=torch.float64, device="cpu")
        for g, b in ((g_out, maps.b_O), (dv, maps.b_V)):
            if b is not None:
                bias += (g.double() * b).sum((1, 2))
        weight = self._norm(layer, "ln1").w.float()
        return g_BTd + dx * weight / self.scale(layer, "ln1")[:n], bias

    def final_direction(self, vectors: torch.Tensor) -> torch.Tensor:
        """Returns the gradient of the last position's residual stream after the last block, from
        that of what the unembedding reads, [..., d]."""
        norm = self.model.ln_final
        scale = self.model.ops.rms_scale(self.model.ops.widen(self.final[None]), norm.eps)
        return vectors * norm.w.float() / scale.float()

    def logits(self) -> torch.Tensor:
        """Returns the last position's logits before any soft cap, fp32 [V]."""
        with torch.no_grad():
            logits: torch.Tensor = self.model.unembed(self.model.ln_final(self.final[None]))
        return logits[0].float()

    def _through_pattern(self, layer: int, dz: torch.Tensor) -> torch.Tensor:
        """dv [B, T, G * h] from dz [B, T, H * h]: the sum over queries and the heads of a group."""
        c = self.model.config
        groups, size = c.n_key_value_heads, c.n_heads // c.n_key_value_heads
        n_batch, n, _ = dz.shape
        pattern = self.patterns[layer][:, :n, :n]
        by_group = dz.view(n_batch, n, groups, size, c.d_head).permute(2, 0, 4, 3, 1)
        found = []
        for g in range(groups):
            keys = pattern[g * size : (g + 1) * size].permute(2, 0, 1).reshape(n, size * n)
            x = by_group[g].reshape(n_batch * c.d_head, size * n)
            found.append(_times(x, _packed(keys)).view(n_batch, c.d_head, n))
        return torch.stack(found, dim=1).permute(0, 3, 1, 2).reshape(n_batch, n, -1)

    def _post(self, layer: int, norm: str, g_BTd: torch.Tensor) -> torch.Tensor:
        weight = self._norm(layer, norm).w.float()
        return g_BTd * weight / self.scale(layer, norm)[: g_BTd.shape[1]]

    def _norm(self, layer: int, name: str) -> RMSNorm:
        norm: RMSNorm = getattr(self.model.blocks[layer], name)
        return norm

    def _attention(self, layer: int) -> _AttentionMaps:
        if layer not in self._maps:
            c = self.model.config
            attn: AttentionWeights = self.model.blocks[layer].attn  # type: ignore[assignment]
            size = c.n_heads // c.n_key_value_heads
            self._maps[layer] = _AttentionMaps(
                _packed(attn.W_O.float().reshape(-1, c.d_model)),
                _packed(attn.W_V[::size].float().permute(1, 0, 2).reshape(c.d_model, -1)),
                attn.b_O.float() if c.attn_out_bias else None,
                attn.b_V[::size].float().reshape(-1) if c.attn_bias else None,
            )
        return self._maps[layer]


def _packed(rows: torch.Tensor) -> PackedWeight:
    n, k = rows.shape
    return pack(StoredMatrix(Format.F32, n, k, rows.detach().contiguous()))


def _times(x: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    return linear(x.contiguous(), weight.data, weight.format, weight.n, None, torch.float32)
