"""The promises of an implementation about the precision of an operation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from ..names import did_you_mean
from .formats import FORMATS, Format, Overflow
from .operations import OPERATIONS, UNITS, operation_called


class ContractError(ValueError):
    """A contract that names something unknown or contradicts itself."""


@dataclass(frozen=True)
class PrecisionContract:
    """Formats, cast points and summation order of one operation.

    Honoured by any implementation that evaluates the operation's formula (its program) with every
    step rounded to nearest in `compute` or kept more precise (a fused multiply-add, a wider
    register), every sum in `accumulate` or wider, and that rounds to nearest even at exactly the
    named cast points: none left out, none added.

    Attributes:
        op: A name in `OPERATIONS` or `UNITS`.
        storage: The format of the inputs and of what is cast.
        compute: The format of elementwise arithmetic.
        accumulate: The format of sums. Dot products multiply in `compute` (operands rounded at the
            cast point "inputs" multiply exactly) and add in `accumulate`.
        casts: The points, of those the operation has, at which values are rounded to `storage`;
            "inputs" rounds them to `compute`.
        order: "any", "sequential" (one chain, ascending: every partial sum is fixed up to fused
            multiply-adds, nothing kept wider), "pairwise" (any tree of depth ceil(log2 n)),
            "blocked:B" (blocks of B in any order, their sums ascending), or "pairs:B:L" (blocks of
            B in two chains, of the even and of the odd terms, added to each other; block sums
            ascending within leaves of L, leaf sums ascending: what bf16's tile units do).
        output: The output's format where it is not `storage`.
        function_ulp: What exp, log, sqrt, rsqrt, tanh, erf, cos, sin and powers may err, in ULP of
            `compute`. exp and log may also go through base 2, which costs them roundings of the
            argument or result; erf counts ULP of 1.
        angles: rope only: the format rotary angles, cos and sin are formed in, where not `compute`.
        may_flush: Subnormals of `compute` and `storage` may become zeros anywhere.
        overflow: What a cast makes of values past the largest number: "saturate" (that number,
            infinities too), "inf" or "nan". By default what hardware does (`Format.overflow`):
            infinity for IEEE's formats, bf16 and TF32, saturation for fp8.
    """

    op: str
    storage: str = "fp32"
    compute: str = "fp32"
    accumulate: str = "fp32"
    casts: tuple[str, ...] = ("output",)
    order: str = "any"
    output: str | None = None
    function_ulp: float = 2.0
    angles: str | None = None
    may_flush: bool = False
    overflow: Overflow | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "casts", tuple(self.casts))
        self._check_names()
        self._check_formats()
        depth(self.order, 1)
        if self.order != "any" and not operation_called(self.op).reduces:
            raise ContractError(
                f"order={self.order!r}: {self.op} sums nothing, leave the order at 'any'"
            )
        if not (math.isfinite(self.function_ulp) and self.function_ulp >= 0.5):
            raise ContractError(
                f"function_ulp={self.function_ulp}: a rounded function errs at least 0.5 ULP; "
                "give a finite number from 0.5 up"
            )

    @property
    def output_format(self) -> Format:
        """The format results leave in."""
        if "output" not in self.casts:
            return FORMATS[self.compute]
        return FORMATS[self.output or self.storage]

    def overflow_in(self, fmt: Format) -> Overflow:
        """Returns what a cast to `fmt` makes of values past its largest number."""
        return self.overflow or fmt.overflow

    def _check_names(self) -> None:
        if self.op not in OPERATIONS | UNITS:
            known = OPERATIONS | UNITS
            near = did_you_mean(self.op, known)
            raise ContractError(f"op={self.op!r}{near}; known are {', '.join(known)}")
        points = operation_called(self.op).cast_points
        for name in self.casts:
            if name not in points:
                raise ContractError(
                    f"casts: {self.op} has no cast point {name!r}; it has {', '.join(points)}"
                )
        if len(set(self.casts)) != len(self.casts):
            raise ContractError(f"casts={self.casts}: a point is named twice")

    def _check_formats(self) -> None:
        for role in ("storage", "compute", "accumulate", "output", "angles"):
            name = getattr(self, role)
            if name is not None and name not in FORMATS:
                raise ContractError(f"{role}={name!r}: known formats are {', '.join(FORMATS)}")
        if self.output is not None and "output" not in self.casts:
            raise ContractError(
                f"output={self.output!r} without the cast 'output': add it to casts, or leave "
                f"output out and the results stay in {self.compute}"
            )
        self._check_overflow()
        if self.angles is not None and self.op != "rope":
            raise ContractError(f"angles={self.angles!r}: only rope forms angles, not {self.op}")
        storage, compute = FORMATS[self.storage], FORMATS[self.compute]
        if compute.precision < storage.precision and "inputs" not in self.casts:
            points = operation_called(self.op).cast_points
            raise ContractError(
                f"compute={self.compute!r} cannot hold inputs stored in {self.storage!r}: "
                + (
                    "add 'inputs' to casts if they are rounded on the way in"
                    if "inputs" in points
                    else f"{self.op} has no cast of its inputs, compute in {self.storage} or wider"
                )
            )
        if "inputs" in self.casts and compute.precision >= storage.precision:
            raise ContractError(
                f"the cast 'inputs' rounds to compute={self.compute!r}, which is not narrower than "
                f"storage={self.storage!r}: leave it out"
            )

    def _check_overflow(self) -> None:
        if self.overflow is None:
            return
        if self.overflow not in get_args(Overflow):
            raise ContractError(
                f"overflow={self.overflow!r}: use {', '.join(map(repr, get_args(Overflow)))}, or "
                "leave it out for what hardware does"
            )
        targets = [self.output_format] + [FORMATS[self.storage]] * (set(self.casts) != {"output"})
        for fmt in targets + [FORMATS[self.compute]] * ("inputs" in self.casts):
            if self.overflow == "inf" and not fmt.infinities:
                raise ContractError(
                    f"overflow='inf': {fmt.name} has no infinity; use 'saturate' or 'nan'"
                )


def depth(order: str, n: int) -> int:
    """The most additions that one of n terms passes through. Raises ContractError."""
    kind, _, size = order.partition(":")
    if kind in ("any", "sequential") and not size:
        return max(n - 1, 0)
    if kind == "pairwise" and not size:
        return max(n - 1, 0).bit_length()
    if kind == "blocked" and size.isdecimal() and int(size) > 0:
        block = int(size)
        return max(min(n, block) - 1, 0) + max(-(-n // block) - 1, 0)
    if kind == "pairs":
        return _depth_of_pairs(order, n)
    raise ContractError(
        f"order={order!r}: use 'any', 'sequential', 'pairwise', 'blocked:B' with B >= 1 or "
        "'pairs:B:L'"
    )


def pair_sizes(order: str) -> tuple[int, int]:
    """Returns the block and the leaf of an order "pairs:B:L". Raises ContractError."""
    block, _, leaf = order.removeprefix("pairs:").partition(":")
    if not (block.isdecimal() and leaf.isdecimal()) or int(block) < 2 or int(leaf) % int(block):
        raise ContractError(
            f"order={order!r}: 'pairs:B:L' needs a block B of at least 2 and a leaf L of whole "
            "blocks"
        )
    return int(block), int(leaf)


def _depth_of_pairs(order: str, n: int) -> int:
    block, leaf = pair_sizes(order)
    in_chain = max(-(-min(n, block) // 2) - 1, 0)
    blocks, leaves = -(-min(n, leaf) // block), -(-n // leaf)
    return in_chain + (n > 1) + max(blocks - 1, 0) + max(leaves - 1, 0)
