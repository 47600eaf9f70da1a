"""Honest implementations of every operation in fp32, and inputs that are hard on them.

Those of a forward pass are in correct_code.py, the others in correct_outside_a_pass.py, which the
benchmarks read, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from bitlens.precision.operations import OPERATIONS, validate_inputs
from support import correct_code
from support.correct_code import FUNCTION_ULP, KINDS, Implementation, Inputs, numbers
from support.correct_outside_a_pass import OTHERS

__all__ = [
    "CORRECT", "FUNCTION_ULP", "KINDS", "Implementation", "Inputs", "draw", "each", "each_with"
]  # fmt: skip

Tensor = torch.Tensor


CORRECT = {**correct_code.CORRECT, **OTHERS}


BY_DAY = ("group_norm", "quantize", "adam_step")
"""Of the operations without a kernel, those that every test sees by day."""


def each(ops: Iterable[str]) -> list[ParameterSet]:
    """The operations, most of those without a kernel of ours by night alone."""
    return [pytest.param(op, id=op, marks=_nightly(op, op in BY_DAY)) for op in ops]


def each_with(ops: Iterable[str], others: Iterable[str], by_day: str) -> list[ParameterSet]:
    """The operations with a format or the like; those without a kernel of ours with one by day."""
    return [
        pytest.param(op, other, id=f"{op}-{other}", marks=_nightly(op, other == by_day))
        for op in ops
        for other in others
    ]


def _nightly(op: str, by_day: bool) -> tuple[pytest.MarkDecorator, ...]:
    return () if by_day or OPERATIONS[op].native is not None else (pytest.mark.nightly,)


def draw(op: str, kind: str, seed: int, dtype: torch.dtype) -> Inputs:
    """Inputs of `op`, stored in `dtype`."""
    if op not in OTHERS:
        return correct_code.draw(op, kind, seed, dtype)
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(2, 300, (), generator=generator))

    def stored(*shape: int) -> Tensor:
        return numbers(kind, shape, generator).to(dtype)

    inputs: dict[str, Any] = {}
    if op == "group_norm":
        affine = {"weight": stored(6), "bias": stored(6)} if seed % 3 else {}
        inputs = {"x": stored(2, 6, n), "groups": (1, 2, 3, 6)[seed % 4], "eps": 1e-5, **affine}
    elif op == "conv1d":
        groups = 1 + seed % 2
        inputs = {"x": stored(2, 4, n), "weight": stored(6, 4 // groups, 3), "groups": groups}
        inputs |= {"bias": stored(6), "padding": (4, 0), "dilation": 2} if seed % 3 else {}
        inputs |= {"padding": 1, "stride": 2} if seed % 3 == 0 else {}
    elif op == "embedding":
        ids = torch.randint(0, 5, (6,), generator=generator)
        inputs = {"ids": ids, "weight": stored(5, n)}
        inputs |= {"scale": 33.94112549695428} if seed % 2 else {}
    elif op == "clamped_swiglu":
        inputs = {"gate": stored(n) * 4, "up": stored(n) * 4}
        inputs |= {"limit": 10.0, "alpha": 1.0, "offset": 0.0} if seed % 3 == 0 else {}
    elif op == "quantize":
        inputs = {"x": stored(6, 2 * n), "scale": stored(6, 2).abs() + 0.25}
        inputs |= {"low": -8, "high": 7} if seed % 2 else {}
    elif op == "dequantize":
        inputs = {"codes": stored(6, 2 * n), "scale": stored(6, 2)}
        inputs |= {"minimum": stored(6, 2)} if seed % 2 else {}
    elif op == "block_scale":
        inputs = {"x": stored(6, 2 * n), "block": n, "limit": (127.0, 6.0)[seed % 2]}
        inputs |= {"power": ("floor", "up")[seed % 2]} if seed % 3 else {}
    elif op == "moe_gate":
        x, k = stored(6, n) * 2, min(4, n)
        ranked = x.double().sort(dim=-1, descending=True).values
        if k < n and bool((ranked[:, k - 1] == ranked[:, k]).any()):
            k = n  # of a tie at the boundary nothing is said
        inputs = {"x": x, "k": k, "renormalize": seed % 3 > 0}
        inputs |= {"score": ("softmax", "sigmoid")[seed % 2], "factor": (1.0, 2.5)[seed // 2 % 2]}
        biased = inputs | {"bias": stored(n)}
        if seed % 4 < 2 and not bool(validate_inputs("moe_gate", biased)["undecided"].any()):
            inputs = biased
    elif op == "rank_sum":
        inputs = {"x": stored(6, n), "average": seed % 2 > 0} | ({"ring": n} if seed % 3 else {})
    elif op == "adam_step":
        names = ("parameter", "gradient", "first", "second")
        inputs = {name: stored(6, n) for name in names} | {"step": 1 + seed % 20}
        inputs["second"] = inputs["second"].abs()
        inputs |= {"decay": (0.0, 0.1)[seed % 2], "decoupled": seed % 3 > 0, "eps": 1e-6}
        inputs["result"] = ("parameter", "parameter", "first", "second")[seed // 3 % 4]
    elif op in ("add", "mul"):
        inputs = {"a": stored(6, n), "b": stored(6, n) if seed % 2 else stored(n)}
    else:
        inputs = {"x": stored(6, n) * 2}
    return inputs
