"""Mutation scoring: which faults would this search have caught under this contract?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .contract import PrecisionContract
from .emulation import emulate
from .faults import FAULTS, Fault
from .search import PROFILES, Implementation, Profile, Strategies, search


@dataclass(frozen=True)
class FaultScore:
    """The outcome of every fault that applies to a contract.

    Attributes:
        caught: Those that the search found inputs against.
        missed: Those it did not.
        indistinguishable: Those that no input can show, with the argument.
    """

    caught: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    indistinguishable: Mapping[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """caught / (caught + missed); 1 where no fault can be told apart."""
        tried = len(self.caught) + len(self.missed)
        return len(self.caught) / tried if tried else 1.0


def fault_score(
    contract: PrecisionContract,
    *,
    faults: Sequence[str] | None = None,
    strategies: Strategies | None = None,
    profile: Profile = PROFILES["ci"],
) -> FaultScore:
    """Searches for inputs that separate every fault (default: all of `FAULTS`) from the contract.

    The faulty implementations are emulations of the contract itself. Raises ValueError for a name
    that is no fault.
    """
    names = list(FAULTS) if faults is None else list(faults)
    if unknown := [name for name in names if name not in FAULTS]:
        raise ValueError(f"{', '.join(unknown)}: no such fault; there are {', '.join(FAULTS)}")
    caught: list[str] = []
    missed: list[str] = []
    indistinguishable: dict[str, str] = {}
    for name in names:
        fault = FAULTS[name]
        if not fault.applies_to(contract):
            continue
        if argument := fault.why_indistinguishable(contract):
            indistinguishable[name] = argument
            continue
        result = search(
            faulty(contract, fault), contract, strategies=strategies, profile=profile, shrink=False
        )
        (missed if result.violation is None else caught).append(name)
    return FaultScore(tuple(caught), tuple(missed), indistinguishable)


def faulty(contract: PrecisionContract, fault: Fault) -> Implementation:
    """An implementation of the contract's operation with the fault in it."""

    def implementation(**inputs: Any) -> torch.Tensor:
        return emulate(inputs, contract, fault)

    return implementation
