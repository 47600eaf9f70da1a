"""What becomes of a public bug: by check, by search, and of its correct twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....precision.oracle import check
from ....precision.search import PROFILES, Profile, search
from .audited import audited
from .bug import Implementation, PublicBug


@dataclass(frozen=True)
class Outcome:
    """Who caught a bug.

    Attributes:
        checked: `check` proves a violation on the inputs chosen.
        examples: The place of the first input that a search of the CI profile found; None: none.
        acquitted: The twin keeps the contract on the same inputs and under the same search.
        audited: Whether lockstep on a model names the bug's operation; None where it does not
            apply.
    """

    bug: PublicBug
    checked: bool
    examples: int | None
    acquitted: bool
    audited: bool | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "reports": list(self.bug.reports),
            "op": self.bug.contract.op,
            "checked": self.checked,
            "examples": self.examples,
            "audited": self.audited,
            "acquitted": self.acquitted,
        }

    @property
    def failed(self) -> bool:
        """Not caught by `check`, or the twin accused."""
        return not self.checked or not self.acquitted


def measure(bug: PublicBug, profile: Profile = PROFILES["ci"]) -> Outcome:
    """Checks, searches and audits the bug and its twin."""
    inputs = bug.inputs()
    found = search(bug.wrong, bug.contract, profile=profile, shrink=False)
    examples = None if found.violation is None else found.tally.examples + 1
    return Outcome(
        bug,
        checked=not check(bug.wrong(**inputs), inputs, bug.contract).ok,
        examples=examples,
        acquitted=_acquitted(bug, bug.right, profile),
        audited=audited(bug),
    )


def _acquitted(bug: PublicBug, twin: Implementation, profile: Profile) -> bool:
    inputs = bug.inputs()
    if not check(twin(**inputs), inputs, bug.contract).ok:
        return False
    return search(twin, bug.contract, profile=profile, shrink=False).failure is None
