"""Metamorphic relations: two runs of one function whose outputs must agree bit for bit.

None needs a reference. Each takes `fn`, called with an operation's inputs by name, and says where
the two outputs first differ, signs of zeros included and NaN payloads not. Scaling by a power of
two holds for every correctly rounded implementation; the invariances hold where they are promised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .contract import PrecisionContract
from .lattice import on_lattice
from .operations import OPERATIONS
from .ulp import ulp_distance

Tensor = torch.Tensor
Function = Callable[..., Tensor]
Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Relation:
    """Whether the relation held on this input; else how many outputs differ, and the first."""

    name: str
    ok: bool
    differing: int
    where: tuple[int, ...] | None
    reason: str


def power_of_two_scaling(fn: Function, op: str, inputs: Inputs, exponent: int) -> list[Relation]:
    """Every scaling of `op`'s inputs by 2**exponent that its output follows exactly.

    Rounding commutes with powers of two, whatever the order or the format, as long as nothing
    underflows or overflows: choose inputs and exponent accordingly. Raises ValueError for softmax,
    logsumexp, silu and gelu, which no such relation binds.
    """
    if op not in OPERATIONS or not OPERATIONS[op].scalings:
        known = ", ".join(name for name, operation in OPERATIONS.items() if operation.scalings)
        raise ValueError(f"power_of_two_scaling: only {known} scale, not {op}")
    plain = fn(**inputs)
    relations = []
    for scaling in OPERATIONS[op].scalings:
        if inputs.get(next(iter(scaling.factors))) is None:
            continue
        scaled = dict(inputs)
        for name, factor in scaling.factors.items():
            if scaled.get(name) is not None:
                scaled[name] = scaled[name] * 2.0 ** (factor * exponent)
        names = " and ".join(scaling.factors)
        expected = plain * 2.0 ** (scaling.output * exponent)
        relations.append(_same(f"{names} scaled by 2**{exponent}", fn(**scaled), expected))
    return relations


def lattice_permutation(
    fn: Function, inputs: Inputs, contract: PrecisionContract, seed: int = 0
) -> Relation:
    """a's columns and b's rows in another order: sums on the exact lattice do not notice.

    Raises ValueError for inputs that are not on the contract's lattice.
    """
    if not on_lattice(inputs, contract):
        raise ValueError("lattice_permutation: inputs are not on the contract's exact lattice")
    order = torch.randperm(inputs["a"].shape[-1], generator=torch.Generator().manual_seed(seed))
    permuted = {**inputs, "a": inputs["a"][..., order], "b": inputs["b"][..., order, :]}
    return _same("terms permuted", fn(**permuted), fn(**inputs))


def batch_invariance(fn: Function, op: str, inputs: Inputs, row: int) -> Relation:
    """One row alone gives the bits it gives among its batch mates."""
    alone = fn(**_rows(op, inputs, slice(row, row + 1)))
    return _same(f"row {row} alone", alone, fn(**inputs)[row : row + 1])


def padding_invariance(fn: Function, op: str, inputs: Inputs, rows: int) -> Relation:
    """Further rows, of zeros, change no bit of the rows that were there."""
    padded = dict(inputs)
    for name in _row_arguments(op):
        x = inputs[name]
        padded[name] = torch.cat([x, x.new_zeros(rows, *x.shape[1:])])
    plain = fn(**inputs)
    return _same(f"{rows} rows of padding", fn(**padded)[: plain.shape[0]], plain)


def split_invariance(fn: Function, op: str, inputs: Inputs, at: int) -> Relation:
    """The rows in two calls, cut at `at`, give the bits of one call."""
    parts = [fn(**_rows(op, inputs, cut)) for cut in (slice(None, at), slice(at, None))]
    return _same(f"split at row {at}", torch.cat(parts), fn(**inputs))


def _rows(op: str, inputs: Inputs, rows: slice) -> dict[str, Any]:
    return {**inputs, **{name: inputs[name][rows] for name in _row_arguments(op)}}


def _row_arguments(op: str) -> tuple[str, ...]:
    """The inputs whose first axis is the output's, where rows stand along it."""
    rows = {
        name: tuple(x for x, axes in operation.axes.inputs.items() if axes.startswith("m"))
        for name, operation in OPERATIONS.items()
        if operation.axes.rows == "m"
    }
    if op not in rows:
        raise ValueError(f"row invariance: {op} has no independent rows; known: {', '.join(rows)}")
    return rows[op]


def _same(name: str, actual: Tensor, expected: Tensor) -> Relation:
    if actual.shape != expected.shape:
        reason = f"{name}: shapes {tuple(actual.shape)} and {tuple(expected.shape)} differ"
        return Relation(name, False, actual.numel(), None, reason)
    steps = ulp_distance(actual, expected)
    differs = (steps != 0) | ((actual.signbit() != expected.signbit()) & ~actual.isnan())
    differing = int(differs.sum())
    if differing == 0:
        return Relation(name, True, 0, None, f"{name}: the same bits")
    where = tuple(int(i) for i in differs.nonzero()[0])
    reason = (
        f"{name}: {differing} of {steps.numel()} outputs differ, first at {where}: "
        f"{float(actual[where])!r} for {float(expected[where])!r}, {int(steps[where])} ULP away"
    )
    return Relation(name, False, differing, where, reason)
