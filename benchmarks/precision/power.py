"""Operation x fault x contract: on which examples the contract and tolerances see the fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...precision.contract import PrecisionContract
from ...precision.emulation import emulate
from ...precision.fault_score import faulty
from ...precision.faults import FAULTS, Fault
from ...precision.oracle import judge
from ...precision.search import PROFILES, Profile, search
from .conventions import CONVENTIONS, Example


@dataclass(frozen=True)
class Cell:
    """What became of one fault in one operation.

    Attributes:
        argument: Why no input can show it; then nothing was run and the counts are 0.
        caught: Examples on which the contract proves a violation.
        searched: Whether only a search under the CI profile, which climbs, found one.
        elements, wrong: Of all examples' outputs: all, and those proven wrong.
        conventions: Examples that each convention fails; None where it has nothing to say.
    """

    library: str
    op: str
    fault: str
    argument: str | None = None
    examples: int = 0
    caught: int = 0
    searched: bool = False
    elements: int = 0
    wrong: int = 0
    conventions: dict[str, int | None] | None = None

    @property
    def escaped(self) -> bool:
        """The contract can tell, and yet no violation was found."""
        return self.argument is None and not self.caught and not self.searched


def cells(
    library: str,
    contract: PrecisionContract,
    examples: Sequence[Example],
    faults: Sequence[str] = tuple(FAULTS),
) -> Iterator[Cell]:
    """A cell for every fault that applies to the contract."""
    for fault in (FAULTS[name] for name in faults):
        if not fault.applies_to(contract):
            continue
        if argument := fault.why_indistinguishable(contract):
            yield Cell(library, contract.op, fault.name, argument)
        else:
            yield _measured(library, contract, examples, fault)


def _measured(
    library: str, contract: PrecisionContract, examples: Sequence[Example], fault: Fault
) -> Cell:
    caught = elements = wrong = 0
    failed: dict[str, int | None] = dict.fromkeys(CONVENTIONS)
    for example in examples:
        actual = emulate(example.inputs, contract, fault)
        verdict = judge(actual, example.allowed, contract)
        caught += verdict.violations > 0
        elements += verdict.elements
        wrong += verdict.violations
        for name, passes in CONVENTIONS.items():
            if (passed := passes(example, actual)) is not None:
                failed[name] = (failed[name] or 0) + (not passed)
    return Cell(
        library,
        contract.op,
        fault.name,
        examples=len(examples),
        caught=caught,
        searched=not caught and _found(contract, fault),
        elements=elements,
        wrong=wrong,
        conventions=failed,
    )


_PROFILES = (Profile("short", 24), PROFILES["ci"])
"""The CI profile tries the kinds of inputs one after the other; a short one sooner gets to all."""


def _found(contract: PrecisionContract, fault: Fault) -> bool:
    implementation = faulty(contract, fault)
    return any(
        search(implementation, contract, profile=profile, shrink=False).violation is not None
        for profile in _PROFILES
    )
