"""Inputs of the CI profile, and many independent rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, settings

from ...precision.contract import PrecisionContract
from ...precision.formats import FORMATS, Format, round_to
from ...precision.operations import OPERATIONS
from ...precision.strategies import inputs_for, strategy_names

Tensor = torch.Tensor
Inputs = dict[str, Any]


_TAKEN_BY_FEW = {"attention": {"mask", "bias", "sinks", "slopes", "empty"}}
"""Arguments that bitlens's kernels and eager Llama do not take."""


def examples(contract: PrecisionContract, n: int, seed: int) -> list[Mapping[str, Any]]:
    """At least `n` inputs in equal parts of every kind, as a search without a target draws them."""
    drawn: list[Mapping[str, Any]] = []

    def take(inputs: Mapping[str, Any]) -> None:
        drawn.append(inputs)

    operation = OPERATIONS[contract.op]
    taken = {*operation.arguments, *operation.optional} - _TAKEN_BY_FEW.get(contract.op, set())
    names = strategy_names(contract, taken)
    share = settings(
        max_examples=-(-n // len(names)),
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for name in names:
        strategy = inputs_for(contract, strategies=[name], arguments=taken, needed=taken)
        run = share(hypothesis.given(strategy)(take))
        hypothesis.seed(seed)(run)()
    return drawn


ROWS = 256
_SIZES = (1, 2, 3, 15, 16, 17, 33, 64, 65, 127, 128, 129, 255, 256, 257, 1025)


def rows(contract: PrecisionContract, generator: torch.Generator) -> Inputs:
    """`ROWS` rows for one call, each drawn by itself: its kind, its scale, its elements.

    A row is what one reduction or one vector of results depends on: a row of `a`, of `x`, of the
    gate, or one query. Weights, keys and values are shared, and drawn anew for every call.
    """
    fmt, op = FORMATS[contract.storage], contract.op
    draw = _Draw(fmt, generator)
    n = draw.one_of(_SIZES)
    if op == "matmul":
        b = draw.normal(n, 2)
        b[n // 2 : n // 2 * 2] = b[: n // 2]  # rows of two opposite halves cancel
        inputs: Inputs = {"a": draw.rows(ROWS, n), "b": draw.stored(b)}
        return inputs | ({"bias": draw.stored(draw.normal(2))} if draw.one_of((0, 1)) else {})
    if op in ("rms_norm", "layer_norm"):
        inputs = {"x": draw.rows(ROWS, n), "weight": draw.stored(draw.normal(n))}
        if op == "layer_norm":
            inputs["bias"] = draw.stored(draw.normal(n))
        return inputs | {"eps": draw.one_of((1e-6, 1e-5))}
    if op in ("softmax", "logsumexp"):
        return {"x": draw.rows(ROWS, n, limit=2.0**12)}
    if op == "attention":
        heads, d = 4, draw.one_of((8, 16, 64))
        shared = {name: draw.rows(2, ROWS // heads, d, limit=16.0) for name in "kv"}
        return {
            "q": draw.rows(heads, ROWS // heads, d, limit=16.0),
            **shared,
            "scale": d**-0.5,
            "causal": True,
        }
    if op == "rope":
        positions = torch.randint(0, 10 ** draw.one_of(range(1, 7)), (ROWS,), generator=generator)
        x = draw.rows(ROWS, draw.one_of((2, 16, 64)))
        return {"x": x, "positions": positions, "theta": draw.one_of((1e4, 5e5))}
    if op == "swiglu":
        activation = draw.one_of(("silu", "gelu_tanh"))
        gate = draw.rows(ROWS, 16, limit=64.0)
        return {"gate": gate, "up": draw.rows(ROWS, 16), "activation": activation}
    x = draw.rows(ROWS, 16, limit=64.0)
    if op == "soft_cap":
        return {"x": x, "cap": draw.one_of((1.0, 30.0, 50.0))}
    return {"x": x} | ({"approximate": draw.one_of(("none", "tanh"))} if op == "gelu" else {})


class _Draw:
    """Numbers of one format."""

    def __init__(self, fmt: Format, generator: torch.Generator) -> None:
        self.format, self.generator = fmt, generator

    def one_of(self, choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def stored(self, x: Tensor) -> Tensor:
        return round_to(x, self.format).to(self.format.dtype)

    def rows(self, *shape: int, limit: float | None = None) -> Tensor:
        """Every row, along the last axis, of its own kind; magnitudes clamped to `limit`."""
        narrow = self.format.max_exponent < 64
        integers = torch.randint(-8 if narrow else -20, 9, shape, generator=self.generator)
        x, half = self.normal(*shape), shape[-1] // 2
        opposite = x.clone()
        nearly = 1 + self.format.unit_roundoff * x[..., half : 2 * half].round()
        opposite[..., half : 2 * half] = -x[..., :half] * nearly
        vanishing = torch.full(shape, 2.0**-12 * (1 - 2.0**-9), dtype=torch.float64)
        vanishing[..., 0] = 1.0
        kinds = (
            x,
            x * 2.0**integers,  # wide range
            opposite,
            x + 100.0,  # large mean
            vanishing,
            (4 * x).round() / 4,  # few bits: ties
            x * self.format.smallest_normal,
            x.masked_fill(integers < 7, 0.0) * 64 + x,  # massive activations
        )
        chosen = torch.randint(len(kinds), (*shape[:-1], 1), generator=self.generator)
        for i, kind in enumerate(kinds):
            x = torch.where(chosen == i, kind, x)
        return self.stored(x if limit is None else x.clamp(-limit, limit))
