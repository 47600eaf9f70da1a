"""Matrix products, convolutions and lookups over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def matmul(over: Algebra, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Array:
    """a [.., m, k] @ b [.., k, n] + bias [n]."""
    y = over.matmul(over.lift(a), over.lift(b))
    return y if bias is None else y + over.lift(bias)


def conv1d(
    over: Algebra,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    groups: int,
) -> Array:
    """sum over taps k and channels c of weight[o, c, k] x[c, stride p + dilation k - padding]."""
    padded = over.lift(torch.nn.functional.pad(x.double(), padding))
    filters, taps = over.lift(weight), weight.shape[-1]
    length = (padded.shape[-1] - dilation * (taps - 1) - 1) // stride + 1
    rows, out, each = x.shape[0], weight.shape[0], weight.shape[1]
    seen, weights = [], []
    for k in range(taps):
        places = padded[..., dilation * k : dilation * k + stride * (length - 1) + 1 : stride]
        seen.append(over.transpose(places.reshape(rows, groups, each, length)))
        weights.append(filters[..., k].reshape(groups, out // groups, each))
    y = over.matmul(over.concatenate(weights), over.transpose(over.concatenate(seen)))
    if bias is not None:
        y = y + over.lift(bias).reshape(groups, out // groups, 1)
    return y.reshape(rows, out, length)


def embedding(over: Algebra, ids: Tensor, weight: Tensor, scale: float | None) -> Array:
    rows = over.lift(weight)[ids]
    return rows if scale is None else rows * over.lift(scale)
