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
from .compiled import compiled, promised
from .conventions import CONVENTIONS, Example
from .implementations import Implementation, declared, implementations
from .rows import ROWS, rows

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


class _Judges:
    """The honest implementations of one contract, what they promise, and what is found of them."""

    def __init__(self, library: str, contract: PrecisionContract, *, with_compiled: bool) -> None:
        self.contract = contract
        self.code = implementations(library, contract.op)
        self.compiled = compiled(library, contract.op) if with_compiled else {}
        self.promises = {name: declared(name, contract) for name in self.code}
        self.promises |= {name: promised(name, contract) for name in self.compiled}
        self.found = Honesty(library, contract.op, list(self.promises))

    def verdicts(
        self,
        inputs: Mapping[str, Any],
        code: Mapping[str, Implementation],
        allowed: Enclosure | None = None,
    ) -> list[Verdict]:
        permitted = {self.contract: allowed} if allowed is not None else {}
        judged = []
        for name, run in code.items():
            promise = self.promises[name]
            if promise not in permitted:
                permitted[promise] = enclosure(inputs, promise)
            judged.append(judge(run(**inputs), permitted[promise], promise))
            self.found.add(name, judged[-1])
        return judged

    def take_rows(self, generator: torch.Generator) -> None:
        verdicts = self.verdicts(rows(self.contract, generator), {**self.code, **self.compiled})
        self.found.rows += ROWS
        self.found.judgements += ROWS * len(verdicts)
        self.found.elements += sum(verdict.elements for verdict in verdicts)

    def climb(self, profile: Profile) -> None:
        """A search toward the bound, by the worst of the implementations."""

        def worst(actual: Tensor, inputs: Mapping[str, Any]) -> Verdict:
            found = self.verdicts(inputs, self.code)
            return max(found, key=lambda verdict: (verdict.violations, verdict.utilisation))

        first = next(iter(self.code.values()))
        tried = search(first, self.contract, judge=worst, profile=profile, shrink=False)
        self.found.searched = tried.tally.examples


def measure(
    library: str,
    contract: PrecisionContract,
    examples: Sequence[Example] = (),
    *,
    n_rows: int,
    seed: int,
    profile: Profile | None = PROFILES["ci"],
    with_compiled: bool = False,
) -> Honesty:
    """Holds every honest implementation of the contract to it, and to the conventions.

    Those that torch.compile makes are held to it on rows alone: other shapes would need graphs of
    their own.
    """
    judges = _Judges(library, contract, with_compiled=with_compiled)
    for example in examples:
        outputs = [run(**example.inputs) for run in judges.code.values()]
        _by_conventions(judges.found, example, outputs)
        judges.verdicts(example.inputs, judges.code, example.allowed)
    generator = torch.Generator().manual_seed(seed)
    while judges.found.rows < n_rows:
        judges.take_rows(generator)
    if profile is not None:
        judges.climb(profile)
    return judges.found


def _by_conventions(found: Honesty, example: Example, outputs: Sequence[Tensor]) -> None:
    for actual in outputs:
        found.outputs += 1
        for name, passes in CONVENTIONS.items():
            if (passed := passes(example, actual)) is not None:
                found.conventions[name] = (found.conventions[name] or 0) + (not passed)
