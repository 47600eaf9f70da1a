"""Componentwise condition numbers: how far an operation magnifies relative errors of its data.

kappa_i = sum_j |x_j dy_i/dx_j| / |y_i| (Higham 2002, section 1.6; Gohberg and Koltracht 1993): if
every x_j is off by a relative e, y_i can be off by kappa_i e, to first order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from .reals.definitions import GELU_CUBIC, arguments_of, evaluate, gelu_argument
from .reals.fp64 import Fp64

Tensor = torch.Tensor


def condition_number(op: str, inputs: Mapping[str, Any]) -> Tensor:
    """kappa of every output of `op`, as fp64 shaped like the output; inf where a sum cancels to 0.

    With respect to: a (or b: it is the same |a||b| / |y|) for matmul, x for the norms, softmax,
    logsumexp, RoPE, SiLU and GELU, gate for SwiGLU. Attention's counts v and, through the
    softmax, q (or k), by a triangle inequality: at most twice the true number. LayerNorm's is such
    a bound too. Raises as `reference` does.
    """
    arguments = arguments_of(op, inputs)
    y = evaluate(Fp64(), op, arguments)
    spread = _SPREADS[op](y, **arguments)
    kappa: Tensor = spread / y.abs()
    return kappa.masked_fill(spread == 0, 0.0)


def _matmul(y: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return a.double().abs() @ b.double().abs()


def _rms_norm(y: Tensor, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """dy_i/dx_j = w_i s (delta_ij - x_i x_j s^2 / n), s the reciprocal root."""
    r = x.double()
    square = r.square().mean(-1, keepdim=True) + eps
    share = r.square() / (x.shape[-1] * square)
    return y.abs() * ((1 - share).abs() + share.sum(-1, keepdim=True) - share)


def _layer_norm(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """dy_i/dx_j = w_i s (delta_ij - 1/n - d_i d_j s^2 / n) with d = x - mean."""
    r = x.double()
    centred = r - r.mean(-1, keepdim=True)
    square = centred.square().mean(-1, keepdim=True) + eps
    pull = (centred * r).abs().mean(-1, keepdim=True) / square
    spread = r.abs() + r.abs().mean(-1, keepdim=True) + centred.abs() * pull
    return weight.double().abs() * square.rsqrt() * spread


def _softmax(y: Tensor, x: Tensor) -> Tensor:
    """dp_i/dx_j = p_i (delta_ij - p_j); a score of -inf stays what it is."""
    scores = x.double().masked_fill(x == -torch.inf, 0.0).abs()
    mean = (y * scores).sum(-1, keepdim=True)
    return y * (scores * (1 - y) + (mean - y * scores).clamp(min=0.0))


def _logsumexp(y: Tensor, x: Tensor) -> Tensor:
    scores = x.double()
    return (scores.softmax(-1) * scores.masked_fill(x == -torch.inf, 0.0).abs()).sum(-1)


def _attention(
    y: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float, visible: Tensor, cap: float | None
) -> Tensor:
    """do/ds_j = p_j (v_j - o), and relative errors of q or k move s_j by scale |q||k_j|, times the
    slope of a soft cap."""
    group = q.shape[-3] // k.shape[-3]
    keys, values = (x.double().repeat_interleave(group, -3) for x in (k, v))
    queries = q.double()
    scores, slope = queries @ keys.mT * scale, torch.ones(())
    if cap is not None:
        slope = _soft_cap_slope(scores, cap)
        scores = cap * (scores / cap).tanh()
    p = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    moved = p * slope * (queries.abs() @ keys.abs().mT) * abs(scale)
    through_scores = moved @ values.abs() + moved.sum(-1, keepdim=True) * y.abs()
    return p @ values.abs() + through_scores


def _soft_cap(y: Tensor, x: Tensor, cap: float) -> Tensor:
    r = x.double()
    return r.abs() * _soft_cap_slope(r, cap)


def _soft_cap_slope(x: Tensor, cap: float) -> Tensor:
    return torch.cosh(x / cap) ** -2


def _rope(y: Tensor, x: Tensor, **tables: Any) -> Tensor:
    """|x1 c| + |x2 s|; the rotation of (|x1|, 0) and of (|x2|, 0) brings out |c| and |s|."""
    half = x.shape[-1] // 2
    first, second = x.double()[..., :half].abs(), x.double()[..., half:].abs()
    ones = torch.cat([torch.ones_like(first), torch.zeros_like(second)], -1)
    turned: Tensor = evaluate(Fp64(), "rope", {"x": ones, **tables}).abs()
    c, s = turned[..., :half], turned[..., half:]
    return torch.cat([first * c + second * s, second * c + first * s], -1)


def _silu(y: Tensor, x: Tensor) -> Tensor:
    r = x.double()
    return y.abs() * (1 + r * (-r).sigmoid()).abs()


def _gelu(y: Tensor, x: Tensor, approximate: str) -> Tensor:
    """x (Phi(x) + x Phi'(x)), or with the derivative of the tanh form."""
    r = x.double()
    if approximate == "none":
        density: Tensor = (-r.square() / 2).exp() / (2 * torch.pi) ** 0.5
        return torch.abs(y + r.square() * density)
    argument: Tensor = gelu_argument(Fp64(), r)
    slope = (2 / torch.pi) ** 0.5 * (1 + 3 * GELU_CUBIC * r.square())
    density = 2 * slope * (2 * argument).sigmoid() * (-2 * argument).sigmoid()
    return torch.abs(y + r.square() * density)


def _swiglu(y: Tensor, gate: Tensor, up: Tensor, activation: str) -> Tensor:
    if activation == "silu":
        return _silu(y, gate)
    activated = evaluate(Fp64(), "gelu", {"x": gate, "approximate": "tanh"})
    return _gelu(activated, gate, "tanh") * up.double().abs()


_SPREADS: dict[str, Callable[..., Tensor]] = {
    "matmul": _matmul,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "logsumexp": _logsumexp,
    "attention": _attention,
    "soft_cap": _soft_cap,
    "rope": _rope,
    "silu": _silu,
    "swiglu": _swiglu,
    "gelu": _gelu,
}
