"""Names the faults, alone or in pairs, that would have given the output that broke the contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from .arithmetic.emulation import Execution
from .contract import ContractError, PrecisionContract
from .emulation import emulate
from .faults import FAULTS, Fault
from .operations import operation_called
from .oracle import check
from .search import Violation


@dataclass(frozen=True)
class Explanation:
    """A cause that agrees with the outputs better than honest execution does.

    Attributes:
        faults: Names of the faults that were made together.
        summary: What an implementation with these faults does.
        explained: Elements of the witnesses' outputs whose bits the faults give, of `telling`.
        telling: Elements in which the faults give other bits than an honest execution.
        agreement: The share of all elements of the witnesses' outputs that the faults give.
        honest_agreement: The same without a fault.
        casts: The cast points, one more or one fewer than declared, with which all witnesses keep
            the contract; None where no such change explains them.
    """

    faults: tuple[str, ...]
    summary: str
    explained: int
    telling: int
    agreement: float
    honest_agreement: float
    casts: tuple[str, ...] | None = None

    @property
    def sentence(self) -> str:
        text = (
            f"{' with '.join(self.faults)} ({self.summary}) gives the bits of {self.explained:,} "
            f"of the {self.telling:,} elements that tell it from an execution of the contract, and "
            f"of {self.agreement:.0%} of all elements; the contract gives "
            f"{self.honest_agreement:.0%}."
        )
        if self.casts is not None:
            text += f" Every output keeps the contract with casts={self.casts!r}."
        return text


def explain(violation: Violation, contract: PrecisionContract) -> Explanation | None:
    """Returns the fault, or pair of faults, that comes closest to the violation's witnesses.

    A pair is named only where it explains half or more of what its better half leaves open. Returns
    None if nothing accounts for half or more of the elements that honest execution does not
    explain: what is merely nearer by chance is no cause.
    """
    actual = [_wide(output) for _, output in violation.witnesses]
    honest = _outputs(violation, contract, None)
    base = _share(actual, honest)
    best, best_share = None, base
    for candidates in (_single(contract), _pairs(contract)):
        if best_share == 1:
            break
        found, share = None, best_share
        for fault in candidates:
            outputs = _outputs(violation, contract, fault)
            if (agreement := _share(actual, outputs)) > share:
                found, share = (fault, outputs), agreement
        if found is not None and share - best_share >= (1 - best_share) / 2:
            best, best_share = found, share
    if best is None:
        return None
    fault, outputs = best
    telling = [~_same(a, b) for a, b in zip(honest, outputs, strict=True)]
    right = [_same(a, b) & t for a, b, t in zip(actual, outputs, telling, strict=True)]
    return Explanation(
        faults=tuple(fault.name.split(_AND)),
        summary=fault.summary,
        explained=sum(int(r.sum()) for r in right),
        telling=sum(int(t.sum()) for t in telling),
        agreement=best_share,
        honest_agreement=base,
        casts=_casts_kept(violation, contract),
    )


_AND = " + "


def _eager(contract: PrecisionContract, execution: Execution) -> Execution | None:
    bent = FAULTS["missing_upcast"].bent(contract, execution)
    return bent and replace(bent, wide_sums=True)


_VARIANTS = (
    Fault(
        "missing_upcast_eager",
        "computes in the storage format, one rounding an eager operation, means included",
        _eager,
    ),
)
"""Common ways to make a fault: told apart here, and caught wherever the fault itself is."""


def _single(contract: PrecisionContract) -> Iterator[Fault]:
    yield from (f for f in (*FAULTS.values(), *_VARIANTS) if f.applies_to(contract))


def _pairs(contract: PrecisionContract) -> Iterator[Fault]:
    bending = [fault for fault in _single(contract) if contract.op not in fault.formulas]
    for first, second in combinations(bending, 2):
        both = _both(first, second)
        if both.applies_to(contract):
            yield both


def _both(first: Fault, second: Fault) -> Fault:
    def bent(contract: PrecisionContract, execution: Execution) -> Execution | None:
        once = first.bent(contract, execution)
        return once and second.bent(contract, once)

    return Fault(f"{first.name}{_AND}{second.name}", f"{first.summary}; {second.summary}", bent)


def _casts_kept(violation: Violation, contract: PrecisionContract) -> tuple[str, ...] | None:
    """Where in the operation it rounds, if one cast more or fewer is all that is wrong."""
    points = operation_called(contract.op).cast_points
    for point in points:
        casts = tuple(p for p in points if (p in contract.casts) != (p == point))
        try:
            other = replace(contract, casts=casts)
        except ContractError:
            continue
        if all(check(actual, inputs, other).ok for inputs, actual in violation.witnesses):
            return casts
    return None


def _outputs(
    violation: Violation, contract: PrecisionContract, fault: Fault | None
) -> list[torch.Tensor]:
    return [_wide(emulate(inputs, contract, fault)) for inputs, _ in violation.witnesses]


def _wide(output: torch.Tensor) -> torch.Tensor:
    return output.detach().to("cpu", torch.float64)


def _same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a == b) & (a.signbit() == b.signbit())) | (a.isnan() & b.isnan())


def _share(actual: list[torch.Tensor], outputs: list[torch.Tensor]) -> float:
    same = [_same(a, b).flatten() for a, b in zip(actual, outputs, strict=True)]
    return float(torch.cat(same).to(torch.float64).mean())
