"""Honest implementations of every operation in fp32: torch's, numpy's and plain loops.

Each takes inputs by name, in any dtype, computes in fp32 and returns fp32; `draw` makes inputs that
are hard on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensor = torch.Tensor
Inputs = dict[str, Any]
Implementation = Callable[..., Tensor]


def _chain(terms: Tensor) -> Tensor:
    """Left to right along the last axis, every partial sum rounded to fp32."""
    total = terms[..., 0]
    for i in range(1, terms.shape[-1]):
        total = total + terms[..., i]
    return total


def _tree(terms: Tensor) -> Tensor:
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        odd = terms[..., 2 * half :]
        terms = torch.cat([terms[..., :half] + terms[..., half : 2 * half], odd], -1)
    return terms[..., 0]


def _numpy_sum(terms: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(terms.numpy().sum(-1)))


def _torch_sum(terms: Tensor) -> Tensor:
    return terms.sum(-1)


SUMS = {"chain": _chain, "tree": _tree, "numpy": _numpy_sum, "torch": _torch_sum}


def _fused_chain(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """acc = fma(a, b, acc): the product unrounded. (Through fp64, whose own rounding is slight.)"""
    total = torch.zeros(a.shape[0], b.shape[1])
    for i in range(a.shape[-1]):
        product = a[:, i : i + 1].double() * b[i].double()
        total = (total.double() + product).float()
    return total if bias is None else total + bias.float()


def _matmul_by(add_up: Callable[[Tensor], Tensor]) -> Implementation:
    def matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        y = add_up(a.float()[:, None, :] * b.float().T)
        return y if bias is None else y + bias.float()

    return matmul


def _torch_matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    y = a.float() @ b.float()
    return y if bias is None else y + bias.float()


def _numpy_matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    y = torch.from_numpy(a.float().numpy() @ b.float().numpy())
    return y if bias is None else y + bias.float()


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    y = y if weight is None else y * weight.float()
    return y if bias is None else y + bias.float()


def _rms_by(add_up: Callable[[Tensor], Tensor], *, divide: bool = False) -> Implementation:
    def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        x = x.float()
        mean = add_up(x * x)[..., None] / x.shape[-1] + eps
        return _affine(x / mean.sqrt() if divide else x * mean.rsqrt(), weight)

    return rms_norm


def _torch_rms(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return F.rms_norm(x.float(), x.shape[-1:], None if weight is None else weight.float(), eps)


def _layer_by(add_up: Callable[[Tensor], Tensor]) -> Implementation:
    def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        x = x.float()
        centred = x - add_up(x)[..., None] / x.shape[-1]
        variance = add_up(centred * centred)[..., None] / x.shape[-1]
        return _affine(centred * (variance + eps).rsqrt(), weight, bias)

    return layer_norm


def _welford(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    x = x.float()
    mean, squares = torch.zeros(x.shape[:-1]), torch.zeros(x.shape[:-1])
    for i in range(x.shape[-1]):
        change = x[..., i] - mean
        mean = mean + change / (i + 1)
        squares = squares + change * (x[..., i] - mean)
    scale = (squares[..., None] / x.shape[-1] + eps).rsqrt()
    return _affine((x - mean[..., None]) * scale, weight, bias)


def _torch_layer(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    w, b = (None if t is None else t.float() for t in (weight, bias))
    return F.layer_norm(x.float(), x.shape[-1:], w, b, eps)


def _softmax_by(add_up: Callable[[Tensor], Tensor]) -> Implementation:
    def softmax(x: Tensor) -> Tensor:
        x = x.float()
        e = (x - x.amax(-1, keepdim=True)).exp()
        return e / add_up(e)[..., None]

    return softmax


def _logsumexp_by(add_up: Callable[[Tensor], Tensor]) -> Implementation:
    def logsumexp(x: Tensor) -> Tensor:
        x = x.float()
        peak = x.amax(-1, keepdim=True)
        peak = peak.masked_fill(peak == -torch.inf, 0.0)
        return peak[..., 0] + add_up((x - peak).exp()).log()

    return logsumexp


def _cross_entropy_by(add_up: Callable[[Tensor], Tensor]) -> Implementation:
    """Over log-probabilities, each row's and then the rows'."""

    def cross_entropy(
        x: Tensor, targets: Tensor, smoothing: float, reduction: str, counted: Tensor
    ) -> Tensor:
        x = x.float()
        shifted = x - x.amax(-1, keepdim=True)
        losses = add_up(shifted.exp()).log()[:, None] - shifted
        loss = losses.gather(1, targets.where(counted, 0)[:, None])[:, 0]
        if smoothing:
            loss = (1 - smoothing) * loss + smoothing * (add_up(losses) / x.shape[-1])
        loss = loss.masked_fill(~counted, 0.0)
        return loss if reduction == "none" else add_up(loss) / counted.sum()

    return cross_entropy


def _torch_cross_entropy(
    x: Tensor, targets: Tensor, smoothing: float, reduction: str, counted: Tensor
) -> Tensor:
    return F.cross_entropy(
        x.float(),
        targets.where(counted, -100),
        label_smoothing=smoothing,
        reduction=reduction,
    )


def _scores(
    q: Tensor,
    keys: Tensor,
    scale: float,
    cap: float | None,
    bias: Tensor | None,
    slopes: Tensor | None,
    behind: Tensor | None,
) -> Tensor:
    scores = q.float() @ keys.mT * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if bias is not None:
        scores = scores + bias.float()
    if slopes is not None:
        assert behind is not None
        scores = scores + slopes.float()[:, None, None] * behind.float()
    return scores


def _eager_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    visible: Tensor | None = None,
    causal: bool = False,
    cap: float | None = None,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
    slopes: Tensor | None = None,
    behind: Tensor | None = None,
    bare: Tensor | None = None,
    empty: str | None = None,
) -> Tensor:
    """Rows of which nothing is visible are all visible where a convention says what they are."""
    group = q.shape[-3] // k.shape[-3]
    keys, values = (x.float().repeat_interleave(group, -3) for x in (k, v))
    scores = _scores(q, keys, scale, cap, bias, slopes, behind)
    if empty is not None:
        assert bare is not None
        scores = scores.masked_fill(bare, 0.0)
    visible = _visible(q, k, causal) if visible is None else visible
    scores = scores.masked_fill(~visible, -torch.inf)
    if sinks is not None:
        column = sinks.float()[:, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], -1)
    mixed = scores.softmax(-1)[..., : k.shape[-2]] @ values
    return mixed.masked_fill(bare, 0.0) if empty == "zero" and bare is not None else mixed


def _torch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    visible: Tensor | None = None,
    causal: bool = False,
    cap: float | None = None,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
    empty: str | None = None,
    **others: Any,
) -> Tensor:
    group = q.shape[-3] // k.shape[-3]
    keys, values = (x.float().repeat_interleave(group, -3)[None] for x in (k, v))
    visible = _visible(q, k, causal) if visible is None else visible
    slopes = others.get("slopes")
    if cap is not None or sinks is not None or slopes is not None or empty is not None:
        # It has none of them, and libraries fall back as here.
        return _eager_attention(
            q, k, v, scale, visible, False, cap, bias, sinks, empty=empty, **others
        )
    mask = visible
    if bias is not None:
        mask = bias.float().expand(q.shape[-3], q.shape[-2], k.shape[-2])
        mask = mask.masked_fill(~visible, -torch.inf)
    return F.scaled_dot_product_attention(q.float()[None], keys, values, mask, scale=scale)[0]


def _visible(q: Tensor, k: Tensor, causal: bool) -> Tensor:
    visible = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    return visible.tril(k.shape[-2] - q.shape[-2]) if causal else visible


def _rope_by(angles: torch.dtype) -> Implementation:
    def rope(
        x: Tensor,
        positions: Tensor | None = None,
        theta: float | None = None,
        cos: Tensor | None = None,
        sin: Tensor | None = None,
        inv_freq: tuple[float, ...] | None = None,
        attention_factor: float | None = None,
    ) -> Tensor:
        if cos is None or sin is None:
            assert positions is not None
            half = x.shape[-1] // 2
            if inv_freq is not None:
                frequency = torch.tensor(inv_freq, dtype=angles)
            else:
                frequency = 1.0 / (theta or 10000.0) ** (torch.arange(half).to(angles) / half)
            angle = positions.to(angles)[..., None] * frequency
            factor = 1.0 if attention_factor is None else attention_factor
            cos, sin = angle.cos() * factor, angle.sin() * factor
        return _rotate(x.float(), cos.float(), sin.float())

    return rope


def _rotate(x: Tensor, c: Tensor, s: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * c - second * s, second * c + first * s], -1)


def _swiglu(gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
    act = F.silu if activation == "silu" else partial(F.gelu, approximate="tanh")
    return act(gate.float()) * up.float()


def _gelu_by_hand(x: Tensor, approximate: str) -> Tensor:
    x = x.float()
    if approximate == "none":
        return 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


CORRECT: dict[str, dict[str, Implementation]] = {
    "matmul": {
        **{name: _matmul_by(add_up) for name, add_up in SUMS.items()},
        "fused chain": _fused_chain,
        "torch gemm": _torch_matmul,
        "numpy gemm": _numpy_matmul,
    },
    "rms_norm": {
        **{name: _rms_by(add_up) for name, add_up in SUMS.items()},
        "division": _rms_by(_torch_sum, divide=True),
        "torch rms_norm": _torch_rms,
    },
    "layer_norm": {
        **{name: _layer_by(add_up) for name, add_up in SUMS.items()},
        "welford": _welford,
        "torch layer_norm": _torch_layer,
    },
    "softmax": {
        **{name: _softmax_by(add_up) for name, add_up in SUMS.items()},
        "torch softmax": lambda x: x.float().softmax(-1),
    },
    "logsumexp": {
        **{name: _logsumexp_by(add_up) for name, add_up in SUMS.items()},
        "torch logsumexp": lambda x: x.float().logsumexp(-1),
    },
    "cross_entropy": {
        **{name: _cross_entropy_by(add_up) for name, add_up in SUMS.items()},
        "torch cross_entropy": _torch_cross_entropy,
    },
    "attention": {"eager": _eager_attention, "torch sdpa": _torch_attention},
    "rope": {
        "fp32 angles": _rope_by(torch.float32),  # as Hugging Face forms them
        "fp64 angles": _rope_by(torch.float64),
    },
    "soft_cap": {
        "torch": lambda x, cap: cap * torch.tanh(x.float() / cap),
        "by reciprocal": lambda x, cap: torch.tanh(x.float() * (1 / torch.tensor(cap))) * cap,
    },
    "silu": {
        "torch silu": lambda x: F.silu(x.float()),
        "times sigmoid": lambda x: x.float() * x.float().sigmoid(),
        "by hand": lambda x: x.float() / (1 + (-x.float()).exp()),
    },
    "swiglu": {"torch": _swiglu},
    "gelu": {
        "torch gelu": lambda x, approximate: F.gelu(x.float(), approximate=approximate),
        "by hand": _gelu_by_hand,
    },
}

# torch's vectorised fp32 GELU takes erf from a short polynomial, over 4 ULP off near x = 3.
FUNCTION_ULP = {"torch gelu": 8.0}

KINDS = ("normal", "wide", "cancelling", "offset", "stagnant")


def numbers(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """fp64 draws; `kind` says what makes them hard."""
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "wide":
        return x * 2.0 ** torch.randint(-12, 13, shape, generator=generator)
    if kind == "cancelling":  # pairs that nearly annul each other
        half = x.shape[-1] // 2
        x[..., half : 2 * half] = -x[..., :half] * (1 + 2.0**-12 * x[..., half : 2 * half])
    if kind == "offset":
        return x + 100.0
    if kind == "stagnant":  # a large term first, then such as just fail to move it
        x = torch.full(shape, 2.0**-12, dtype=torch.float64) * (1 - 2.0**-9)
        x[..., 0] = 1.0
    return x


def draw(op: str, kind: str, seed: int, dtype: torch.dtype) -> Inputs:
    """Inputs of `op`, stored in `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(2, 300, (), generator=generator))

    def stored(*shape: int) -> Tensor:
        return numbers(kind, shape, generator).to(dtype)

    if op == "matmul":
        bias = stored(5) if seed % 2 else None
        return {"a": stored(4, n), "b": stored(5, n).T, "bias": bias}
    if op == "rms_norm":
        return {"x": stored(6, n), "weight": stored(n), "eps": 10.0 ** -(seed % 9 + 3)}
    if op == "layer_norm":
        weight, bias = stored(n), stored(n)
        return {"x": stored(6, n), "weight": weight, "bias": bias, "eps": 1e-5}
    if op == "cross_entropy":
        targets = torch.randint(0, n, (6,), generator=generator)
        targets[seed % 6] = -100
        options = {"smoothing": (0.0, 0.1, 1.0)[seed % 3], "reduction": ("none", "mean")[seed % 2]}
        return {"x": stored(6, n) * 2, "targets": targets, **options}
    if op == "attention":
        d, keys = 8 * (seed % 8 + 1), n
        queries = min(5, keys)
        q, k, v = stored(4, queries, d), stored(2, keys, d), stored(2, keys, d)
        return {"q": q, "k": k, "v": v, "causal": seed % 3 > 0, "scale": d**-0.5}
    if op == "rope":
        positions = torch.randint(0, 10 ** (seed % 6 + 1), (7,), generator=generator)
        return {"x": stored(3, 7, 16), "positions": positions, "theta": 10000.0}
    if op == "soft_cap":
        return {"x": stored(6, n) * 4, "cap": (1.0, 5.0, 50.0)[seed % 3]}
    if op == "swiglu":
        return {"gate": stored(n) * 4, "up": stored(n)}
    if op == "gelu":
        return {"x": stored(n) * 3, "approximate": ("none", "tanh")[seed % 2]}
    return {"x": stored(6, n) * 2}
