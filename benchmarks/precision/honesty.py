"""False alarms: honest implementations before every judge, and how much of a bound they use.

An *example* is one row (draws.rows): what one reduction or one vector of results depends on, drawn
by itself and judged by its own permitted intervals. A *judgement* is a row times an implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...precision.contract import PrecisionContract
from ...precision.oracle import Enclosure, Verdict, enclosure, judge
from ...precision.search import PROFILES, Profile, search
from .conventions import CONVENTIONS, Example
from .draws import ROWS, rows
from .implementations import declared, implementations

Tensor = torch.Tensor


@dataclass
class Honesty:
    """What was found of the honest implementations of one operation.

    Attributes:
        rows, judgements: Examples drawn by `rows`, and those times implementations.
        elements: Results judged on them.
        outputs: Outputs judged on the CI profile's inputs, those that conventions saw.
        conventions: How many of them each convention fails; None where it has nothing to say.
        searched: Inputs that a climbing search tried against all implementations.
        alarms: Reasons of verdicts against honest code. There should be none.
        utilisation, by: The largest share used of what a contract leaves, and by whom.
    """

    library: str
    op: str
    implementations: list[str]
    rows: int = 0
    judgements: int = 0
    elements: int = 0
    outputs: int = 0
    conventions: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(CONVENTIONS))
    searched: int = 0
    alarms: list[str] = field(default_factory=list)
    utilisation: float = 0.0
    by: str = ""

    def add(self, name: str, verdict: Verdict) -> None:
        """Takes one verdict on the implementation of that name into account."""
        if verdict.violations:
            self.alarms.append(f"{name}: {verdict.reason}")
        if verdict.utilisation > self.utilisation:
            self.utilisation, self.by = verdict.utilisation, name

    @property
    def unused(self) -> bool:
        """Nobody came above 1% of the bound: it may be loose, or hidden by the last rounding."""
        return self.utilisation < 0.01


def measure(
    library: str,
    contract: PrecisionContract,
    examples: Sequence[Example] = (),
    *,
    n_rows: int,
    seed: int,
    profile: Profile | None = PROFILES["ci"],
) -> Honesty:
    """Holds every honest implementation of the contract to it, and to the conventions."""
    code = implementations(library, contract.op)
    found = Honesty(library, contract.op, list(code))

    promises = {name: declared(name, contract) for name in code}

    def verdicts(inputs: Mapping[str, Any], allowed: Enclosure | None = None) -> list[Verdict]:
        permitted = {contract: allowed} if allowed is not None else {}
        judged = []
        for name, run in code.items():
            promise = promises[name]
            if promise not in permitted:
                permitted[promise] = enclosure(inputs, promise)
            judged.append(judge(run(**inputs), permitted[promise], promise))
            found.add(name, judged[-1])
        return judged

    for example in examples:
        _by_conventions(found, example, [run(**example.inputs) for run in code.values()])
        verdicts(example.inputs, example.allowed)
    generator = torch.Generator().manual_seed(seed)
    while found.rows < n_rows:
        inputs = rows(contract, generator)
        judged = verdicts(inputs)
        found.rows += ROWS
        found.judgements += ROWS * len(code)
        found.elements += sum(verdict.elements for verdict in judged)

    def worst(actual: Tensor, inputs: Mapping[str, Any]) -> Verdict:
        return max(verdicts(inputs), key=lambda verdict: (verdict.violations, verdict.utilisation))

    if profile is not None:
        first = next(iter(code.values()))
        found.searched = search(
            first, contract, judge=worst, profile=profile, shrink=False
        ).tally.examples
    return found


def _by_conventions(found: Honesty, example: Example, outputs: Sequence[Tensor]) -> None:
    for actual in outputs:
        found.outputs += 1
        for name, passes in CONVENTIONS.items():
            if (passed := passes(example, actual)) is not None:
                found.conventions[name] = (found.conventions[name] or 0) + (not passed)
