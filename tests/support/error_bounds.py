"""A priori bounds on the rounding error of every operation, and what they come to in the logits.

docs/accuracy.md derives them. Each bound is elementwise, against exact arithmetic on the same
inputs, and holds for any order of summation, with or without FMA: bitlens's kernels, torch's and
transformers' alike. Tensor names: T rows, K keys, H heads, G key/value heads, h d_head, d d_model,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from bitlens.model.rope.scaling import Dynamic, Llama3, RopeScaling, Yarn, rotary_frequencies
from bitlens.model.transformer import HookedTransformer

Tensor = torch.Tensor


@dataclass(frozen=True)
class Rounding:
    """Error bounds for arithmetic of unit roundoff u (2^-24 for fp32).

    Attributes:
        angles: Rotary angles are formed in this arithmetic, as transformers and TransformerLens do,
            instead of in fp64.
    """

    u: float = 2.0**-24
    angles: bool = False

    def gamma(self, n: int) -> float:
        """n u / (1 - n u): the relative error of n roundings (Higham 2002, lemma 3.1)."""
        return n * self.u / (1 - n * self.u)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """|y^ - y| for y = x W^T + b; also where x comes with two roundings of its own."""
        y = x.abs() @ weight.abs().T
        if bias is not None:
            y = y + bias.abs()
        return self.gamma(x.shape[-1] + 3) * y

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self.u * (x + y).abs()

    def fold(self, aggregate: str, z: Tensor, logits: Tensor, window: int, weight: float) -> float:
        """|r^ - r| of the score of a sequence whose tokens have the values z [n]; a rolling mean's
        window and a moving average's weight are as given."""
        n, largest = len(z), float(z.abs().max())
        if aggregate in ("last", "max"):
            return 0.0
        if aggregate in ("mean", "rolling"):
            return self.gamma((n if aggregate == "mean" else min(n, window)) + 1) * largest
        if aggregate == "ema":
            step = (1 + 4 * weight) * self.u * largest
            return min(n, 1 / weight) * step * (1 + 8 * self.u)
        span = float(logits.max() - logits.min())
        return 2 * (6 * n + 8 + span) * self.u * largest

    def rms_scale(self, x: Tensor, eps: float) -> Tensor:
        """A sum of squares has no cancellation, and the root halves its relative error."""
        scale = (x.square().mean(-1, keepdim=True) + eps).sqrt()
        return (self.gamma(x.shape[-1] + 3) / 2 + 3 * self.u) * scale

    def normalize(self, x: Tensor, scale: Tensor) -> Tensor:
        return 2 * self.u * (x / scale).abs()

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + eps).sqrt()
        return (self.gamma(x.shape[-1] + 3) / 2 + 8 * self.u) * (x / scale * weight).abs()

    def rope(
        self, x: Tensor, positions: Tensor, theta: float, scaling: RopeScaling | None = None
    ) -> Tensor:
        """x [T, heads, h]; both halves of a pair share the sum of their magnitudes."""
        half = x.shape[-1] // 2
        n_positions = int(positions.max()) + 1
        found = rotary_frequencies(theta, x.shape[-1], scaling, n_positions)
        inv_freq = torch.tensor(found.inv_freq, dtype=torch.float64)
        angle = positions.double()[:, None, None] * inv_freq
        table = 2 * self.u
        if self.angles:
            off = math.log(theta) + 8 + frequency_roundings(scaling, theta, x.shape[-1])
            table = table + angle * off * self.u
        if found.attention_factor != 1:
            table = (table + 2 * self.u) * found.attention_factor
        pair = x[..., :half].abs() + x[..., half:].abs()
        bound = (table + 3 * self.u * found.attention_factor) * pair
        return torch.cat([bound, bound], -1)

    def scores(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """q [..., T, h], k [..., K, h] -> [..., T, K]."""
        return self.gamma(q.shape[-1] + 1) * scale * (q.abs() @ k.abs().mT)

    def soft_cap(self, y: Tensor) -> Tensor:
        """Of y = c tanh(x / c), tanh to 2 ULP: what moves x moves y by no more, |dy| <= |dx|, and
        the quotient's rounding moves y by u |x| / cosh^2(x / c) <= u |y|."""
        return 6 * self.u * y.abs()

    def softmax(self, scores: Tensor, given: Tensor | float = 0.0) -> Tensor:
        """Of the pattern, where scores [..., K] (-inf at masked keys) are off by `given`.

        First order in `given`. The last term covers exponentials that underflow.
        """
        pattern = scores.softmax(-1)
        n_visible = int((scores > -math.inf).sum(-1).max())
        distance = (scores - scores.amax(-1, keepdim=True)).abs()
        shift = (given + self.u * distance).masked_fill(scores == -math.inf, 0.0)
        mean_shift = (pattern * shift).sum(-1, keepdim=True)
        relative = shift + mean_shift + 4 * self.u + self.gamma(n_visible + 3)
        return pattern * relative + torch.finfo(torch.float32).tiny

    def values(self, pattern: Tensor, v: Tensor, given: Tensor | float = 0.0) -> Tensor:
        """Of pattern [..., T, K] @ v [..., K, h], where the pattern is off by `given`."""
        return (self.gamma(v.shape[-2] + 1) * pattern + given) @ v.abs()

    def gated_act(self, kind: str, gate: Tensor, up: Tensor) -> Tensor:
        """Of act(gate) * up; GELU as g / (1 + exp(-z)) or through tanh(z / 2)."""
        if kind == "silu":
            return 6 * self.u * (gate * gate.sigmoid() * up).abs()
        z = math.sqrt(8 / math.pi) * (gate + 0.044715 * gate**3)
        spread = 6 * z.abs() * z.sigmoid() * (-z).sigmoid()
        return (8 + spread) * self.u * (gate * up).abs()


def frequency_roundings(scaling: RopeScaling | None, theta: float, d_head: int) -> float:
    """How many u, relative to a scaled frequency, its scaling adds where it is done in fp32.

    A ramp that is off by e moves the frequency it blends by at most `factor` times e.
    """
    plain = math.log(theta) + 8
    if isinstance(scaling, Dynamic):
        # The stretch is a difference, then a power, of which a frequency takes a power below 1.
        return (8 * scaling.factor + math.log(scaling.factor) + 8) * d_head / (d_head - 2)
    if isinstance(scaling, Yarn):
        low, high = scaling.ramp(theta, d_head)
        return 8 + scaling.factor * 4 * (1 + (low + d_head) / abs(high - low))
    if isinstance(scaling, Llama3):
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        return 8 + scaling.factor * (plain + 8) * (high + low) / (high - low)
    return 0 if scaling is None else 3


def operation_bound(rounding: Rounding, name: str, args: tuple[Any, ...], kwargs: Any) -> Tensor:
    """The bound of one dispatched operation, `name` its address within the block."""
    if name == "attention":
        return _attention(rounding, *args, **kwargs)
    if name == "soft_cap":
        return rounding.soft_cap(soft_cap(*args))
    if name == "act":
        return rounding.gated_act(*args)
    if name == "embed":
        tokens, weight, scale = args
        return rounding.u * (weight[tokens] * scale).abs()
    if name.startswith("resid"):
        return rounding.add(*args)
    if name.startswith("rope"):
        return rounding.rope(*args)
    if name.startswith("ln") or name.endswith("norm"):
        return rounding.rms_norm(*args)
    return rounding.linear(*args)


def soft_cap(x: Tensor, cap: float) -> Tensor:
    return cap * torch.tanh(x / cap)


def _attention(
    rounding: Rounding,
    q_THh: Tensor,
    cache: Any,
    batch: Any,
    *,
    scale: float,
    cap: float | None,
    window: int | None,
) -> Tensor:
    k_GKh, v_GKh = (x.transpose(0, 1) for x in cache.written)
    q = q_THh.transpose(0, 1)
    group = q.shape[0] // k_GKh.shape[0]
    k, v = (x.repeat_interleave(group, 0) for x in (k_GKh, v_GKh))
    hidden = ~batch.visible_THK(window).transpose(0, 1)
    pattern, off = attention_pattern(rounding, q, k, hidden, scale, cap)
    return rounding.values(pattern, v, off).transpose(0, 1)


def attention_pattern(
    rounding: Rounding, q: Tensor, k: Tensor, hidden: Tensor, scale: float, cap: float | None
) -> tuple[Tensor, Tensor]:
    """The pattern [..., T, K] of q [..., T, h] and k [..., K, h], and its bound."""
    scores, off = q @ k.mT * scale, rounding.scores(q, k, scale)
    if cap is not None:
        scores = soft_cap(scores, cap)
        off = off + rounding.soft_cap(scores)
    scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1), rounding.softmax(scores, off).masked_fill(hidden, 0.0)


@dataclass
class LogitBounds:
    """Runs an fp64 model and bounds its logits' error under each of some roundings.

    To first order a logit's error is the sum over operations of its derivative by the operation's
    output times the operation's own error. The derivatives come from autograd: every operation's
    output gets a leaf of zeros added.
    """

    model: HookedTransformer
    roundings: tuple[Rounding, ...]
    leaves: list[Tensor] = field(default_factory=list)
    bounds: list[list[Tensor]] = field(default_factory=list)

    def __call__(self, tokens_T: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [T, V] of one sequence, and for each rounding the bound on them."""
        return self.of(lambda model: model(tokens_T)[0])

    def of(self, function: Callable[[HookedTransformer], Tensor]) -> tuple[Tensor, list[Tensor]]:
        """A differentiable function of what the model computes, and its bounds.

        The function's own arithmetic on top of the model's is not in them.
        """
        self.leaves, self.bounds = [], [[] for _ in self.roundings]
        with ExitStack() as stack:
            for address in self.model.op_addresses:
                stack.enter_context(self.model.override(address, self._observer(address)))
            value = function(self.model)
        every = torch.eye(value.numel(), dtype=value.dtype).view(-1, *value.shape)
        slopes = torch.autograd.grad(
            value, self.leaves, every, is_grads_batched=True, allow_unused=True
        )
        totals = []
        for bounds in self.bounds:
            parts = (
                slope.flatten(1).abs() @ bound.flatten()
                for slope, bound in zip(slopes, bounds, strict=True)
                if slope is not None  # what comes after the value, or beside it
            )
            totals.append(torch.stack(list(parts)).sum(0).view(value.shape))
        return value.detach(), totals

    def _observer(self, address: str) -> Callable[..., Tensor]:
        name = address.rpartition(".")[2]

        def observe(operation: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
            y = operation(*args, **kwargs)
            return self.inexact(y, lambda rounding: operation_bound(rounding, name, args, kwargs))

        return observe

    def inexact(self, y: Tensor, bound_of: Callable[[Rounding], Tensor]) -> Tensor:
        """y as something computed with this error."""
        with torch.no_grad():
            for rounding, bounds in zip(self.roundings, self.bounds, strict=True):
                bounds.append(bound_of(rounding))
        self.leaves.append(torch.zeros_like(y, requires_grad=True))
        return y + self.leaves[-1]
