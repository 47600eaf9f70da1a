"""How far two implementations may differ at each hook when both start from the same values.

Tensor names: B batch, P positions, H heads, G key/value heads, h d_head, d d_model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from bitlens.model.weights.checkpoint import Checkpoint
from support.error_bounds import Rounding, Tensor

EXACT = (
    "hook_tokens",
    "hook_embed",
    "hook_resid_pre",
    "hook_attn_in",
    "hook_q_input",
    "hook_k_input",
    "hook_v_input",
    "hook_mlp_in",
)
"""Hooks that show a copy of what came before: no arithmetic, no difference."""


def used(found: Tensor, expected: Tensor, bound: Tensor) -> float:
    """The largest share of its bound that a difference takes up; masked scores must be equal."""
    masked = expected == -torch.inf
    assert torch.equal(masked, found == -torch.inf)
    difference = (found.double() - expected.double()).masked_fill(masked, 0.0).abs()
    assert bool((difference[bound == 0] == 0).all())
    return float((difference / bound.clamp(min=1e-300)).max())


class LocalBounds:
    """Bounds on one implementation's error at each hook, given the values of the hooks before."""

    def __init__(
        self, checkpoint: Checkpoint, values: Mapping[str, Tensor], rounding: Rounding
    ) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.values = values
        self.r = rounding

    def outside_blocks(self) -> dict[str, Tensor]:
        last = f"blocks.{self.config.n_layers - 1}.hook_resid_post"
        return {
            **self._norm("ln_final", self._value(last)),
            "unembed.hook_in": self._weighted("ln_final"),
            "unembed.hook_out": self.r.linear(self._value("unembed.hook_in"), self._unembedding()),
        }

    def block(self, index: int) -> dict[str, Tensor]:
        b = f"blocks.{index}"
        before, middle = self._value(f"{b}.hook_resid_pre"), self._value(f"{b}.hook_resid_mid")
        return {
            **self._norm(f"{b}.ln1", before),
            **self._projections(b),
            **self._rotated(b, index),
            **self._attention(b),
            f"{b}.hook_resid_mid": self.r.add(before, self._value(f"{b}.hook_attn_out")),
            **self._norm(f"{b}.ln2", middle),
            **self._mlp(b),
            f"{b}.hook_resid_post": self.r.add(middle, self._value(f"{b}.hook_mlp_out")),
        }

    def _norm(self, address: str, x: Tensor, given: Tensor | None = None) -> dict[str, Tensor]:
        """Of a norm of x, which is itself off by `given`: a scale is 1-Lipschitz in RMS."""
        scale = self._value(f"{address}.hook_scale")
        off = torch.zeros_like(x) if given is None else given
        shift = off.square().mean(-1, keepdim=True).sqrt()
        return {
            f"{address}.hook_scale": self.r.rms_scale(x, self.config.eps) + shift,
            f"{address}.hook_normalized": self.r.normalize(x, scale) + off / scale,
        }

    def _normed(self, address: str) -> Tensor:
        """A norm's output, from its normalized input."""
        weight = self._vector(address) + self.config.norm_offset
        return self._value(f"{address}.hook_normalized") * weight

    def _weighted(self, address: str) -> Tensor:
        """Of that output: the weight's own rounding, where there is an offset, and the product."""
        return 2 * self.r.u * self._normed(address).abs()

    def _projections(self, b: str) -> dict[str, Tensor]:
        x, bounds = self._normed(f"{b}.ln1"), {}
        for name in "qkv":
            y = self._linear(x, f"{b}.attn.{name}", self.config.attn_bias)
            bounds[f"{b}.attn.hook_{name}"] = y.unflatten(-1, (-1, self.config.d_head))
        return bounds

    def _rotated(self, b: str, index: int) -> dict[str, Tensor]:
        bounds = {}
        for name in "qk":
            x_BPHh, given = self._value(f"{b}.attn.hook_{name}"), None
            if self.config.qk_norm:
                norm = f"{b}.attn.{name}_norm"
                bounds |= self._norm(norm, x_BPHh)
                x_BPHh, given = self._normed(norm), self._weighted(norm)
            positions = torch.arange(x_BPHh.shape[1]).repeat(x_BPHh.shape[0])
            rope = self.config.layers[index].rope
            rotated = self.r.rope(x_BPHh.flatten(0, 1), positions, *rope).view_as(x_BPHh)
            if given is not None:  # neither cos nor sin is above the attention factor, 2 at most
                pair = given.unflatten(-1, (2, -1)).sum(-2)
                rotated = rotated + 2 * torch.cat([pair, pair], -1)
            bounds[f"{b}.attn.hook_rot_{name}"] = rotated
        return bounds

    def _attention(self, b: str) -> dict[str, Tensor]:
        q, k, v = (
            self._value(f"{b}.attn.hook_{n}").transpose(1, 2) for n in ("rot_q", "rot_k", "v")
        )
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        scores = self._value(f"{b}.attn.hook_attn_scores")
        pattern = self._value(f"{b}.attn.hook_pattern")
        off = self.r.scores(q, k, self.config.attn_scale)
        if self.config.attn_logit_softcap is not None:  # scores are shown after it
            off = off + self.r.soft_cap(scores.masked_fill(scores == -torch.inf, 0.0))
        return {
            f"{b}.attn.hook_attn_scores": off,
            f"{b}.attn.hook_pattern": self.r.softmax(scores),
            f"{b}.attn.hook_z": self.r.values(pattern, v).transpose(1, 2),
            **self._attention_output(b),
        }

    def _attention_output(self, b: str) -> dict[str, Tensor]:
        z_BPHh = self._value(f"{b}.attn.hook_z")
        o_dHh = self._matrix(f"{b}.attn.o").unflatten(1, z_BPHh.shape[2:])
        size = torch.einsum("bphi,dhi->bphd", z_BPHh.abs(), o_dHh.abs())
        result = self.r.gamma(self.config.d_head + 3) * size
        # TransformerLens adds up heads, others do not: the longer of both chains.
        total, biased = size.sum(2), self.config.attn_out_bias
        bias = self._bias(f"{b}.attn.o") if biased else torch.zeros(())
        chain = self.r.gamma(self.config.d_head * self.config.n_heads + 4)
        out = chain * (total + bias.abs()) + result.sum(2)
        bounds = {f"{b}.attn.hook_result": result}
        if not self.config.sandwich_norms:
            return bounds | {f"{b}.hook_attn_out": out}
        exact = torch.einsum("bphi,dhi->bpd", z_BPHh, o_dHh) + bias
        norm = f"{b}.ln1_post"
        return bounds | self._norm(norm, exact, out) | {f"{b}.hook_attn_out": self._weighted(norm)}

    def _mlp(self, b: str) -> dict[str, Tensor]:
        x, biased = self._normed(f"{b}.ln2"), self.config.mlp_bias
        gate, up = self._value(f"{b}.mlp.hook_pre"), self._value(f"{b}.mlp.hook_pre_linear")
        out = self._linear(self._value(f"{b}.mlp.hook_post"), f"{b}.mlp.down", biased)
        bounds = {
            f"{b}.mlp.hook_in": self._weighted(f"{b}.ln2"),
            f"{b}.mlp.hook_pre": self._linear(x, f"{b}.mlp.gate", biased),
            f"{b}.mlp.hook_pre_linear": self._linear(x, f"{b}.mlp.up", biased),
            f"{b}.mlp.hook_post": self.r.gated_act(self.config.act_fn, gate, up),
            f"{b}.mlp.hook_out": out,
        }
        if not self.config.sandwich_norms:
            return bounds | {f"{b}.hook_mlp_out": out}
        norm = f"{b}.ln2_post"
        bounds |= self._norm(norm, self._value(f"{b}.mlp.hook_out"))
        return bounds | {f"{b}.hook_mlp_out": self._weighted(norm)}

    def _linear(self, x: Tensor, address: str, biased: bool) -> Tensor:
        return self.r.linear(x, self._matrix(address), self._bias(address) if biased else None)

    def _bias(self, address: str) -> Tensor:
        return self.checkpoint.vector(f"{address}.bias").double()

    def _value(self, name: str) -> Tensor:
        return self.values[name].double()

    def _vector(self, address: str) -> Tensor:
        return self.checkpoint.vector(f"{address}.weight").double()

    def _matrix(self, address: str) -> Tensor:
        return self.checkpoint.matrix(f"{address}.weight").dequantize().double()

    def _unembedding(self) -> Tensor:
        return self._matrix("embed" if self.config.tie_embeddings else "unembed")
