"""Inputs on which a fault leaves its contract: where a search may start, and often end.

Most faults show on ordinary numbers. Flushed subnormals need results below the smallest normal; a
sum in another order needs terms that vanish one by one beside a large partial sum but not together
(Higham 2002, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .contract import PrecisionContract
from .formats import FORMATS, round_to

Tensor = torch.Tensor
Inputs = dict[str, Any]


def separating_inputs(contract: PrecisionContract, fault: str, seed: int = 0) -> Inputs:
    """Inputs for `contract.op`, in its storage format, chosen against the fault of that name.

    Deterministic in `seed`. On them the faults that the contract can distinguish show, if its sums
    are in fp32 (narrower ones drown a reordering in their own error).
    """
    draw = _Draw(contract, seed)
    if fault == "flush_to_zero":
        return _subnormal_results(draw, contract.op)
    if fault == "reordered_reduction":
        return _vanishing_terms(draw, contract.op)
    if fault in _FORMULAS:
        return _FORMULAS[fault](draw)
    if fault == "other_overflow":
        return _overflowing(draw, contract.op)
    if contract.op == "matmul" and fault == "double_rounding":
        # Short sums: what the contract leaves to them must not reach across the extra bits.
        return {"a": draw.normal(16, 16), "b": draw.normal(16, 64)}
    return _ordinary(draw, contract.op)


class _Draw:
    """Seeded numbers of the contract's storage format."""

    def __init__(self, contract: PrecisionContract, seed: int) -> None:
        self.format = FORMATS[contract.storage]
        self.accumulate = FORMATS[contract.accumulate]
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return self.stored(torch.randn(shape, generator=self.generator, dtype=torch.float64))

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1), not yet stored."""
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def stored(self, x: Tensor) -> Tensor:
        return round_to(x, self.format).to(self.format.dtype or torch.float32)

    def full(self, shape: tuple[int, ...], value: float) -> Tensor:
        return self.stored(torch.full(shape, value, dtype=torch.float64))


def _ordinary(draw: _Draw, op: str) -> Inputs:
    rows, n = 8, 320
    if op == "matmul":
        return {"a": draw.normal(rows, n), "b": draw.normal(n, 48), "bias": draw.normal(48)}
    if op == "attention":
        keys, values = draw.normal(2, 33, 32), draw.normal(2, 33, 32)
        return {"q": draw.normal(4, 20, 32), "k": keys, "v": values, "causal": True}
    if op == "rope":
        positions = torch.arange(100, 120)
        return {"x": draw.normal(4, 20, 32), "positions": positions, "theta": 10000.0}
    if op == "swiglu":
        return {"gate": draw.normal(rows, n), "up": draw.normal(rows, n)}
    if op == "logsumexp":
        return {"x": draw.normal(2048, 4)}
    inputs: Inputs = {"x": draw.normal(rows, n)}
    if op in ("rms_norm", "layer_norm"):
        inputs["weight"] = draw.normal(n)
    if op == "layer_norm":
        inputs["bias"] = draw.normal(n)
    return inputs | {"cap": 3.1} if op == "soft_cap" else inputs  # 3.1: no bf16 number


def _overflowing(draw: _Draw, op: str) -> Inputs:
    """Results twice as large as the largest number."""
    large, two, four = (draw.full((1,), x) for x in (draw.format.largest, 2.0, 4.0))
    pulse = torch.zeros(1, 16, dtype=torch.float64)
    pulse[0, 0] = 2.0
    row, weights = draw.stored(pulse), draw.full((16,), draw.format.largest)
    cases: dict[str, Inputs] = {
        "matmul": {"a": large[None], "b": two[None]},
        "rms_norm": {"x": row, "weight": weights},
        "layer_norm": {"x": row, "weight": weights, "bias": draw.full((16,), 0.0)},
        "rope": {
            "x": torch.cat([large, large])[None],
            "cos": draw.full((1, 1), 0.75),
            "sin": draw.full((1, 1), 0.75),
        },
        "swiglu": {"gate": four, "up": large},
    }
    return cases[op]


def _offset_rows(draw: _Draw) -> Inputs:
    """A large mean, and a step of 1 from it: the sums are exact, those of squares are not."""
    n, mean = 1024, min(2.0**13, 2.0 ** (draw.format.precision - 1))
    rows = torch.full((4, n), mean, dtype=torch.float64)
    rows[:, 0] += 1
    return {"x": draw.stored(rows), "weight": draw.normal(n), "bias": draw.normal(n)}


def _small_variance(draw: _Draw) -> Inputs:
    n = 64
    x = draw.stored(torch.randn(8, n, generator=draw.generator, dtype=torch.float64) * 2.0**-11)
    return {"x": x, "weight": draw.normal(n), "bias": draw.full((n,), 0.0), "eps": 1e-8}


def _attention_with(draw: _Draw, **options: Any) -> Inputs:
    return _ordinary(draw, "attention") | options


_FORMULAS: dict[str, Callable[[_Draw], Inputs]] = {
    "variance_from_squares": _offset_rows,
    "small_variance_dropped": _small_variance,
    "scale_ignored": lambda draw: _attention_with(draw, scale=0.7),
    "cap_ignored": lambda draw: _attention_with(draw, cap=1.5),
    "past_ignored": lambda draw: _attention_with(draw, past=5),
    "cap_after_mask": lambda draw: _attention_with(draw, cap=1.5),
}


def _subnormal_results(draw: _Draw, op: str) -> Inputs:
    small = 0.75 * draw.format.smallest_normal
    one, tiny, zero = draw.full((1,), 1.0), draw.full((1,), small), draw.full((1,), 0.0)
    cases: dict[str, Callable[[], Inputs]] = {
        "matmul": lambda: {"a": tiny[None], "b": one[None]},
        "rms_norm": lambda: {"x": one[None], "weight": tiny},
        "layer_norm": lambda: {
            "x": torch.cat([one, -one])[None],
            "weight": torch.cat([tiny, tiny]),
            "bias": torch.cat([zero, zero]),
        },
        "softmax": lambda: {"x": draw.stored(torch.tensor([[0.0, math.log(small / 2)]]).double())},
        "logsumexp": lambda: {"x": tiny[None]},
        "attention": lambda: {"q": zero[None, None], "k": zero[None, None], "v": tiny[None, None]},
        "rope": lambda: {"x": torch.cat([tiny, zero])[None], "positions": torch.tensor([0])},
        "soft_cap": lambda: {"x": tiny, "cap": 1.0},
        "silu": lambda: {"x": tiny},
        "swiglu": lambda: {"gate": one, "up": tiny},
        "gelu": lambda: {"x": tiny},
    }
    return cases[op]()


def _vanishing_terms(draw: _Draw, op: str) -> Inputs:
    n, u = 2048, draw.accumulate.unit_roundoff
    if op == "matmul":
        # Just above the middle of two stored numbers, by what the last terms add up to.
        root = math.sqrt(0.75 * u)
        a = torch.full((1, n), root, dtype=torch.float64)
        a[0, :2] = torch.tensor([1.0, draw.format.unit_roundoff])
        b = torch.full((n, 1), root, dtype=torch.float64)
        b[:2] = 1.0
        return {"a": draw.stored(a), "b": draw.stored(b)}
    if op in ("rms_norm", "layer_norm"):
        x = math.sqrt(0.9 * u) * (0.6 + 0.4 * draw.uniform(1, 2 * n))
        x[0, ::2] *= -1
        x[0, :2] = torch.tensor([1.0, -1.0])
        inputs = {"x": draw.stored(x), "weight": draw.normal(2 * n)}
        return inputs if op == "rms_norm" else inputs | {"bias": draw.full((2 * n,), 0.0)}
    if op == "attention":
        heads, width = 8, 32
        scores, values = _vanishing_scores(draw, heads, n)[..., None], draw.normal(heads, n, width)
        values[:, _LARGE:] = 0
        keys = torch.cat([scores, torch.zeros_like(scores).expand(-1, -1, width - 1)], -1)
        query = draw.full((heads, 1, width), 1.0)
        return {"q": query, "k": keys, "v": values, "scale": 1.0, "causal": False}
    return {"x": _vanishing_scores(draw, 512 if op == "logsumexp" else 32, n)}


_LARGE = 60


def _vanishing_scores(draw: _Draw, rows: int, n: int) -> Tensor:
    """60 exponentials that add up to a little over 17, then many of which none moves that sum."""
    small = math.log(16 * 0.85 * draw.accumulate.unit_roundoff)
    x = torch.full((rows, n), small, dtype=torch.float64)
    x[:, :_LARGE] = -2 - 10 * draw.uniform(rows, _LARGE)
    x[:, :17] = 0.0
    return draw.stored(x)
