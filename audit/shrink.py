"""Delta debugging of one operation's inputs: the fewest and simplest that still show a result.

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (IEEE TSE 28, 2002),
over axes first (rows, then columns, then terms of a sum) and values last (few significand bits,
then exponent 0). Deterministic. Axis names are those of `Axes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..precision.operations import OPERATIONS, UNITS
from ..precision.operations.operation import Axes
from .row_sample import KEY_AXES, queries_from

Inputs = dict[str, Any]
Score = Callable[[Inputs], float]
"""What the shrunk inputs must keep high. Raises ValueError for inputs that cannot be."""


AXES = {
    op: operation.axes
    for op, operation in (OPERATIONS | UNITS).items()
    if operation.native is not None or op in UNITS
}
"""Of the operations that an audit finds in a model."""


@dataclass
class Shrinking:
    """One search. `checks` counts how often the score was taken, at most `budget` times."""

    op: str
    score: Score
    target: float
    budget: int = 600
    checks: int = 0
    _axes: Axes = field(init=False)

    def __post_init__(self) -> None:
        self._axes = AXES[self.op]

    def run(self, inputs: Inputs, where: Sequence[int]) -> Inputs:
        """The simplest inputs found whose score is at least `target`; `where` is the output element
        that had it."""
        inputs = self._pick(dict(inputs), where)
        for axis in self._axes.thinned:
            inputs = self._thin(inputs, axis)
        return self._simplify(inputs)

    def _keeps(self, inputs: Inputs) -> bool:
        if self.checks >= self.budget:
            return False
        self.checks += 1
        try:
            return self.score(inputs) >= self.target
        except ValueError:
            return False

    def _pick(self, inputs: Inputs, where: Sequence[int]) -> Inputs:
        """Only the row, column or head of the wanted element, where that alone shows it."""
        cut = pick(self.op, inputs, where)
        if self._keeps(cut):
            return cut
        for axis in self._axes.picked:
            inputs = self._thin(inputs, axis)
        return inputs

    def _thin(self, inputs: Inputs, axis: str) -> Inputs:
        """ddmin: drops ever smaller parts of the axis while the rest still shows the result."""
        kept = list(range(_length(inputs, self._axes, axis)))
        parts = 2
        while len(kept) > 1 and self.checks < self.budget:
            size = -(-len(kept) // parts)
            for start in range(0, len(kept), size):
                rest = kept[:start] + kept[start + size :]
                if rest and self._keeps(self._take(inputs, axis, rest)):
                    kept, parts = rest, max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    break
                parts = min(parts * 2, len(kept))
        return self._take(inputs, axis, kept)

    def _take(self, inputs: Inputs, axis: str, indices: Sequence[int]) -> Inputs:
        cut = _select(self._axes, inputs, axis, indices)
        if KEY_AXES[self.op] and axis == "s":
            cut["past"] = len(indices) - inputs["q"].shape[-2]
        return cut

    def _simplify(self, inputs: Inputs) -> Inputs:
        """Values: whole tensors to few significand bits, then element by element."""
        for name in _floats(inputs):
            for bits in range(1, 24):
                simple = {**inputs, name: significand(inputs[name], bits)}
                if torch.equal(simple[name], inputs[name]):
                    break
                if self._keeps(simple):
                    inputs = simple
                    break
        for name in _floats(inputs):
            for i in range(min(inputs[name].numel(), 64)):
                inputs = self._simplify_element(inputs, name, i)
        return inputs

    def _simplify_element(self, inputs: Inputs, name: str, i: int) -> Inputs:
        old = float(inputs[name].flatten()[i])
        for value in simpler(old):
            changed = inputs[name].clone()
            changed.view(-1)[i] = value
            candidate = {**inputs, name: changed}
            if float(changed.view(-1)[i]) != old and self._keeps(candidate):
                return candidate
        return inputs


def pick(op: str, inputs: Inputs, where: Sequence[int]) -> Inputs:
    """The inputs of one output element: its row, and its column or head if that can stand alone."""
    axes = AXES[op]
    place = dict(zip(axes.output, where, strict=True))
    if KEY_AXES[op]:
        inputs = _one_query(op, inputs, place)
    for axis in axes.picked:
        inputs = _select(axes, inputs, axis, [place[axis]])
    return dict(inputs)


def picked_output(op: str, y: torch.Tensor, where: Sequence[int]) -> torch.Tensor:
    """The output that belongs to `pick`."""
    axes = AXES[op]
    kept = axes.picked + ("ht" if KEY_AXES[op] else "")
    for dim, (axis, at) in enumerate(zip(axes.output, where, strict=True)):
        if axis in kept:
            y = y.narrow(dim, at, 1)
    return y


def _select(axes: Axes, inputs: Inputs, axis: str, indices: Sequence[int]) -> Inputs:
    cut = dict(inputs)
    at = torch.tensor(list(indices))
    for name, names in axes.inputs.items():
        if axis in names and isinstance(inputs.get(name), torch.Tensor):
            cut[name] = inputs[name].index_select(names.index(axis) - len(names), at)
    return cut


def significand(x: torch.Tensor, bits: int) -> torch.Tensor:
    """x rounded to so many significand bits; its exponents stay (but for carries)."""
    mantissa, exponent = torch.frexp(x.double())
    return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent).to(x.dtype)


def simpler(value: float) -> Iterator[float]:
    """Values in the order in which a reader would rather see them than this one."""
    if value == 0:
        return
    sign = 1.0 if value > 0 else -1.0
    yield 0.0
    yield sign
    x = torch.tensor(value, dtype=torch.float64)
    for bits in range(1, 5):
        rounded = float(significand(x, bits))
        unit, _ = torch.frexp(torch.tensor(rounded, dtype=torch.float64))
        yield from (float(2 * unit), rounded)


def _floats(inputs: Inputs) -> list[str]:
    return [
        name
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim
    ]


def _length(inputs: Inputs, axes: Axes, axis: str) -> int:
    name = next(n for n, a in axes.inputs.items() if axis in a and n in inputs)
    length: int = inputs[name].shape[axes.inputs[name].index(axis) - len(axes.inputs[name])]
    return length


def _one_query(op: str, inputs: Inputs, place: dict[str, int]) -> Inputs:
    """One head's one query over the keys it sees."""
    if inputs.get("causal", False):
        inputs = queries_from(op, inputs, place["t"], 1)
    else:
        inputs = {**inputs, "q": inputs["q"].narrow(-2, place["t"], 1)}
    if "h" not in place:
        return dict(inputs)
    group = inputs["q"].shape[-3] // inputs["k"].shape[-3]
    heads = {"q": place["h"], "k": place["h"] // group, "v": place["h"] // group}
    return inputs | {name: inputs[name][h : h + 1].clone() for name, h in heads.items()}
