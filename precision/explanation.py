"""Names the known fault that would have given the output that broke the contract."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .contract import ContractError, PrecisionContract
from .emulation import emulate
from .faults import FAULTS, Fault
from .operations import OPERATIONS
from .oracle import check
from .search import Violation


@dataclass(frozen=True)
class Explanation:
    """A fault whose emulation agrees with the outputs better than honest execution does.

    Attributes:
        fault: Its name in `FAULTS`.
        agreement: The share of elements of the witnesses' outputs that it gives bit for bit.
        honest_agreement: The same without the fault.
        casts: The cast points, one more or one fewer than declared, with which all witnesses keep
            the contract; None where no such change explains them.
    """

    fault: str
    agreement: float
    honest_agreement: float
    casts: tuple[str, ...] | None = None

    @property
    def sentence(self) -> str:
        text = (
            f"What {self.fault} ({FAULTS[self.fault].summary}) gives agrees in "
            f"{self.agreement:.0%} of the elements bit for bit, an execution of the contract in "
            f"{self.honest_agreement:.0%}."
        )
        if self.casts is not None:
            text += f" Every output keeps the contract with casts={self.casts!r}."
        return text


def explain(violation: Violation, contract: PrecisionContract) -> Explanation | None:
    """The fault that comes closest to the violation's witnesses.

    None if none accounts for half or more of the elements that honest execution does not explain:
    a fault that is merely nearer by chance is no cause.
    """
    honest = _agreement(violation, contract, None)
    best: Explanation | None = None
    for name, fault in FAULTS.items():
        if not fault.applies_to(contract):
            continue
        agreement = _agreement(violation, contract, fault)
        if agreement > (best.agreement if best else honest):
            best = Explanation(name, agreement, honest)
    if best is None or best.agreement - honest < (1 - honest) / 2:
        return None
    return replace(best, casts=_casts_kept(violation, contract))


def _casts_kept(violation: Violation, contract: PrecisionContract) -> tuple[str, ...] | None:
    """Where in the operation it rounds, if one cast more or fewer is all that is wrong."""
    points = OPERATIONS[contract.op].cast_points
    for point in points:
        casts = tuple(p for p in points if (p in contract.casts) != (p == point))
        try:
            other = replace(contract, casts=casts)
        except ContractError:
            continue
        if all(check(actual, inputs, other).ok for inputs, actual in violation.witnesses):
            return casts
    return None


def _agreement(violation: Violation, contract: PrecisionContract, fault: Fault | None) -> float:
    same = []
    for inputs, actual in violation.witnesses:
        a = actual.detach().to("cpu", torch.float64)
        b = emulate(inputs, contract, fault).to(torch.float64)
        equal = ((a == b) & (a.signbit() == b.signbit())) | (a.isnan() & b.isnan())
        same.append(equal.flatten())
    return float(torch.cat(same).to(torch.float64).mean())
