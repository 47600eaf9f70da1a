"""Many independent rows of every operation, for one call.

A row is what one reduction or one vector of results depends on: a row of `a`, of `x`, of the gate,
one query, one batch of a convolution. Weights, keys and values are shared, and drawn anew for every
call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...precision.contract import PrecisionContract
from ...precision.formats import FORMATS
from .numbers import Numbers

Inputs = dict[str, Any]

ROWS = 256
_SIZES = (1, 2, 3, 15, 16, 17, 33, 64, 65, 127, 128, 129, 255, 256, 257, 1025)
_SHORT = _SIZES[:9]


def rows(contract: PrecisionContract, generator: torch.Generator) -> Inputs:
    """Returns `ROWS` rows for one call, each drawn by itself: its kind, its scale, its elements."""
    draw = Numbers(FORMATS[contract.storage], generator)
    return _DRAWN[contract.op](draw, draw.one_of(_SIZES))


def _matmul(draw: Numbers, n: int) -> Inputs:
    b = draw.normal(n, 2)
    b[n // 2 : n // 2 * 2] = b[: n // 2]  # rows of two opposite halves cancel
    inputs = {"a": draw.rows(ROWS, n), "b": draw.stored(b)}
    return inputs | ({"bias": draw.stored(draw.normal(2))} if draw.one_of((0, 1)) else {})


def _rms_norm(draw: Numbers, n: int) -> Inputs:
    inputs = {"x": draw.rows(ROWS, n), "weight": draw.stored(draw.normal(n))}
    return inputs | {"eps": draw.one_of((1e-6, 1e-5))}


def _layer_norm(draw: Numbers, n: int) -> Inputs:
    return _rms_norm(draw, n) | {"bias": draw.stored(draw.normal(n))}


def _group_norm(draw: Numbers, n: int) -> Inputs:
    """A row is one batch, of as many reductions as groups."""
    channels, positions = 6, min(n, 65)
    x = draw.rows(ROWS, channels * positions).reshape(ROWS, channels, positions)
    affine = {name: draw.stored(draw.normal(channels)) for name in ("weight", "bias")}
    return {"x": x, "groups": draw.one_of((1, 2, 6)), **affine, "eps": draw.one_of((1e-6, 1e-5))}


def _logits(draw: Numbers, n: int) -> Inputs:
    return {"x": draw.rows(ROWS, n, limit=2.0**12)}


def _cross_entropy(draw: Numbers, n: int) -> Inputs:
    options = {"smoothing": draw.one_of((0.0, 0.1)), "reduction": "none"}
    return _logits(draw, n) | {"targets": draw.integers(n, ROWS), **options}


def _moe_gate(draw: Numbers, n: int) -> Inputs:
    """Half of the time with a bias for the choice."""
    experts = min(n, 129)
    inputs: Inputs = {"x": draw.rows(ROWS, experts, limit=64.0), "k": min(4, experts)}
    inputs |= {"score": draw.one_of(("softmax", "sigmoid")), "renormalize": draw.one_of((0, 1)) > 0}
    inputs["factor"] = draw.one_of((1.0, 2.5))
    bias = {"bias": draw.stored(draw.normal(experts) / 16)}
    return inputs | (bias if draw.one_of((0, 1)) else {})


def _attention(draw: Numbers, n: int) -> Inputs:
    heads, d = 4, draw.one_of((8, 16, 64))
    shared = {name: draw.rows(2, ROWS // heads, d, limit=16.0) for name in "kv"}
    q = draw.rows(heads, ROWS // heads, d, limit=16.0)
    return {"q": q, **shared, "scale": d**-0.5, "causal": True}


def _rope(draw: Numbers, n: int) -> Inputs:
    positions = draw.integers(10 ** draw.one_of(range(1, 7)), ROWS)
    x = draw.rows(ROWS, draw.one_of((2, 16, 64)))
    return {"x": x, "positions": positions, "theta": draw.one_of((1e4, 5e5))}


def _conv1d(draw: Numbers, n: int) -> Inputs:
    """Four channels over at most 65 positions, before it or on both sides padded."""
    groups, length = draw.one_of((1, 2)), min(n, 65)
    inputs: Inputs = {"x": draw.rows(ROWS, 4 * length).reshape(ROWS, 4, length), "groups": groups}
    inputs["weight"] = draw.stored(draw.normal(6, 4 // groups, 3))
    inputs |= {"padding": draw.one_of(((4, 0), (2, 2))), "dilation": 2}
    return inputs | ({"bias": draw.stored(draw.normal(6))} if draw.one_of((0, 1)) else {})


def _embedding(draw: Numbers, n: int) -> Inputs:
    ids, scale = draw.integers(ROWS, ROWS), draw.one_of((55.42562584220407, None))
    return {"ids": ids, "weight": draw.rows(ROWS, n)} | ({"scale": scale} if scale else {})


def _unary(draw: Numbers, n: int) -> Inputs:
    return {"x": draw.rows(ROWS, 16, limit=64.0)}


def _soft_cap(draw: Numbers, n: int) -> Inputs:
    return _unary(draw, n) | {"cap": draw.one_of((1.0, 30.0, 50.0))}


def _gelu(draw: Numbers, n: int) -> Inputs:
    return _unary(draw, n) | {"approximate": draw.one_of(("none", "tanh"))}


def _swiglu(draw: Numbers, n: int) -> Inputs:
    pair = {"gate": draw.rows(ROWS, 16, limit=64.0), "up": draw.rows(ROWS, 16)}
    return pair | {"activation": draw.one_of(("silu", "gelu_tanh"))}


def _clamped_swiglu(draw: Numbers, n: int) -> Inputs:
    """gpt-oss's gate, or one that is only clamped."""
    pair = {"gate": draw.rows(ROWS, 16), "up": draw.rows(ROWS, 16)}
    clamped = {"limit": 10.0, "alpha": 1.0, "offset": 0.0}
    return pair | draw.one_of(({}, clamped))


def _operands(draw: Numbers, n: int) -> Inputs:
    return {name: draw.rows(ROWS, 16) for name in "ab"}


def _quantize(draw: Numbers, n: int) -> Inputs:
    """Two blocks a row."""
    length = draw.one_of(_SHORT)
    inputs = {"x": draw.rows(ROWS, 2 * length), "scale": draw.scales(ROWS, 2)}
    ranges: tuple[Inputs, ...] = ({}, {"low": -8, "high": 7}, {"low": -127, "high": 127})
    return inputs | draw.one_of(ranges)


def _dequantize(draw: Numbers, n: int) -> Inputs:
    blocks = {name: draw.rows(ROWS, 2, limit=64.0) for name in ("scale", "minimum")}
    return {"codes": draw.rows(ROWS, 2 * draw.one_of(_SHORT), limit=127.0), **blocks}


def _block_scale(draw: Numbers, n: int) -> Inputs:
    length, power = draw.one_of(_SHORT), draw.one_of((None, "floor", "up"))
    inputs = {"x": draw.rows(ROWS, 2 * length), "block": length}
    inputs["limit"] = draw.one_of((127.0, 448.0, 6.0))
    return inputs | ({"power": power} if power else {})


def _rank_sum(draw: Numbers, n: int) -> Inputs:
    ranks = min(n, 65)
    return {"x": draw.rows(ROWS, ranks), "average": draw.one_of((False, True)), "ring": ranks}


def _adam_step(draw: Numbers, n: int) -> Inputs:
    names = ("parameter", "gradient", "first")
    inputs: Inputs = {name: draw.rows(ROWS, 16, limit=64.0) for name in names}
    inputs |= {"second": draw.rows(ROWS, 16, limit=64.0).abs(), "step": draw.one_of((1, 2, 1000))}
    inputs |= {"decay": draw.one_of((0.0, 0.1)), "decoupled": draw.one_of((False, True))}
    return inputs | {"result": draw.one_of(("parameter", "parameter", "first", "second"))}


_DRAWN: dict[str, Callable[[Numbers, int], Inputs]] = {
    "matmul": _matmul,
    "conv1d": _conv1d,
    "embedding": _embedding,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "softmax": _logits,
    "log_softmax": _logits,
    "logsumexp": _logits,
    "cross_entropy": _cross_entropy,
    "moe_gate": _moe_gate,
    "attention": _attention,
    "soft_cap": _soft_cap,
    "rope": _rope,
    "silu": _unary,
    "swiglu": _swiglu,
    "clamped_swiglu": _clamped_swiglu,
    "gelu": _gelu,
    "add": _operands,
    "mul": _operands,
    "sigmoid": _unary,
    "tanh": _unary,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "block_scale": _block_scale,
    "rank_sum": _rank_sum,
    "adam_step": _adam_step,
}
