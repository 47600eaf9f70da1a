"""One operation's facts, and who states each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..arithmetic.interface import Arithmetic
from ..inputs import Inputs
from .seeded import SeededDraw

if TYPE_CHECKING:
    from ..strategies.drawing import Drawing

Tensor = torch.Tensor
Formula = Callable[[Arithmetic[Any], Inputs], Any]
Seeded = Callable[[SeededDraw], dict[str, Any]]


@dataclass(frozen=True)
class Axes:
    """The axes of an operation's inputs, each a letter.

    m rows, n columns, k terms of a sum, d features, i inside an MLP, h heads, t queries,
    g key/value heads, s keys.

    Attributes:
        inputs: Axis names of each input that has axes; trailing ones of the tensor.
        output: Axis names of the output; those in `picked` may be cut to the one wanted element.
        thinned: Axes to remove entries from, in this order, to make an example smaller.
    """

    inputs: dict[str, str]
    output: str
    picked: str
    thinned: str

    @property
    def rows(self) -> str:
        """The letter of the axis along which outputs do not depend on one another."""
        return "t" if "t" in self.output else "m"


@dataclass(frozen=True)
class Scaling:
    """Inputs to multiply by 2**(exponent * factor), and the factor that its output follows by."""

    factors: Mapping[str, int]
    output: int


@dataclass(frozen=True)
class WrongFormula:
    """A formula as implementations have got it wrong, a correct program but for one thing.

    For `Emulation` only: some look at the numbers that they compute with.
    """

    name: str
    summary: str
    formula: Formula


@dataclass(frozen=True)
class Native:
    """The promises of bitlens's kernels for an operation, beyond the formats of a policy.

    Attributes:
        order: The order of its sums.
        bf16_order: The order where its inputs are bf16, if that is another.
        function_ulp: What exp and its like may err.
        angles: The format that rotary angles are formed in.
        fp32: Whether it takes and returns fp32 under every policy.
        stepwise: What it takes and returns instead where every step is rounded.
        output: What it returns where that is not what it takes.
    """

    order: str = "any"
    bf16_order: str | None = None
    function_ulp: float = 2.0
    angles: str | None = None
    fp32: bool = False
    stepwise: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class Eager:
    """The steps of transformers' eager Llama on the way to an operation's output.

    Attributes:
        casts: What it rounds in between.
        function_ulp: What torch's functions may err.
        flushes: Whether torch's kernels for bf16 flush subnormals, as oneDNN's do on CPUs with bf16
            instructions.
    """

    casts: tuple[str, ...] = ()
    function_ulp: float = 2.0
    flushes: bool = False


def _two_per_element(inputs: Inputs) -> int:
    return 2 * max(x.numel() for x in inputs.values() if isinstance(x, Tensor))


def _unstated(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("an operation of UNITS is judged, and nothing else is stated of it")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation.

    Its program and its real value are written independently of each other, so that each checks the
    other.

    Attributes:
        arguments: Names that `inputs` must have.
        optional: Names it may have.
        cast_points: Where a contract may declare a rounding to storage.
        statistics: Those cast points that are one number a row.
        alternatives: Those cast points that are another place of the same rounding.
        reduces: Whether it sums, so that an order means something.
        multiplies: Whether it is made of products that a tensor core can take.
        computed_factor: The cast point of a factor of these that is computed, not given.
        fuses: Whether it adds products, which a multiply-add can round once.
        every_step_cast: Whether each of its steps, a constant included, ends in a cast point.
        masked: Whether inputs may be -inf.
        infinite: Those that may be -inf where the others may not.
        least: No result in fp32 lies between 0 and this.
        check: Called as check(name, inputs) with every argument there: fills in defaults, or raises
            InputsError.
        implied: Arguments that another one says already, once inputs are checked.
        program: Its formula, over any `Arithmetic`.
        real: Its value over the real numbers, over any `Algebra`.
        bound: A closed bound on what rounding does to a result, by a `RoundingModel`.
        spread: The sum over the data x_j of |x_j dy/dx_j|, of which a condition number is made.
        roundings: How many roundings of some inputs happen inside reductions.
        axes: The axes of its inputs and its output.
        scalings: The powers of two that its output follows exactly.
        native: What bitlens's kernels promise; None where there is none.
        eager: What transformers' eager Llama does.
        wrong: Ways to get its formula wrong.
        ordinary: Seeded inputs on which most faults show.
        separating: Seeded inputs by the name of a fault for which others are needed.
        drawings: Called for how Hypothesis, an extra, draws inputs: by operation of the family.
    """

    name: str
    arguments: tuple[str, ...]
    optional: tuple[str, ...] = ()
    cast_points: tuple[str, ...]
    statistics: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    reduces: bool = False
    multiplies: bool = False
    computed_factor: str | None = None
    fuses: bool = False
    every_step_cast: bool = False
    masked: bool = False
    infinite: tuple[str, ...] = ()
    least: float = 0.0
    check: Callable[[str, dict[str, Any]], None]
    implied: tuple[str, ...] = ()
    program: Formula
    real: Callable[..., Any] = _unstated
    bound: Callable[..., Tensor] = _unstated
    spread: Callable[..., Tensor] = _unstated
    roundings: Callable[[Inputs], int] = _two_per_element
    axes: Axes
    scalings: tuple[Scaling, ...] = ()
    native: Native | None = None
    eager: Eager = Eager()
    wrong: tuple[WrongFormula, ...] = ()
    ordinary: Seeded = _unstated
    separating: Mapping[str, Seeded] = field(default_factory=dict)
    drawings: Callable[[], Mapping[str, Drawing]] = _unstated
