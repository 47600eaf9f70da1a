"""The search for inputs on which an implementation breaks its contract.

Hypothesis draws inputs that suit the operation, climbs (`target`) toward those that use most of the
permitted error, and shrinks what it finds.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .extra import missing

try:
    import hypothesis
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import strategies as st
    from hypothesis.errors import Flaky
except ModuleNotFoundError as error:
    raise missing("a search for inputs", "Hypothesis") from error

from .contract import PrecisionContract
from .exact import Method, reference
from .judges import Judge, judge_by
from .operations import operation_called
from .oracle import Verdict
from .strategies.inputs import inputs_for, strategy_names
from .tally import Tally

Implementation = Callable[..., torch.Tensor]
Strategies = Sequence[str] | st.SearchStrategy[Any]


@dataclass(frozen=True)
class Profile:
    """The length of a search: `examples` inputs, shared equally by the kinds of inputs; without a
    `seed`, other ones every time.
    """

    name: str
    examples: int
    seed: int | None = 0


PROFILES = {"ci": Profile("ci", 100), "nightly": Profile("nightly", 5000, seed=None)}


@dataclass(frozen=True)
class Violation:
    """Shrunk inputs, what came out, and the verdict on it.

    Attributes:
        witnesses: Pairs of inputs and output that broke the contract on the way, these the last.
    """

    inputs: Mapping[str, Any]
    actual: torch.Tensor
    verdict: Verdict
    witnesses: tuple[tuple[Mapping[str, Any], torch.Tensor], ...]


@dataclass(frozen=True)
class SearchResult:
    """The findings of a search: a violation or none, and the errors it saw on the way.

    Attributes:
        hardest: The inputs that used most of the bound; None if no call kept the contract.
        left_out: Optional arguments that the implementation does not take: they were never drawn.
    """

    violation: Violation | None
    tally: Tally
    hardest: Mapping[str, Any] | None
    left_out: tuple[str, ...] = ()

    @property
    def failure(self) -> str | None:
        """Why the search is no evidence for the implementation; None if it is."""
        if self.violation is not None:
            return self.violation.verdict.reason
        if self.tally.outputs and not self.tally.claimed:
            return (
                f"the contract claims nothing of any of the {self.tally.outputs} results on "
                f"{self.tally.examples} inputs: choose strategies whose results the formats hold"
            )
        return None


_WITNESSES = 12
"""So many violations are kept: the shrunk one alone may be too plain to tell faults apart."""


class _Broken(Exception):
    """Ends an example, which Hypothesis then shrinks."""


def search(
    fn: Implementation,
    contract: PrecisionContract,
    *,
    strategies: Strategies | None = None,
    profile: Profile = PROFILES["ci"],
    judge: Judge | None = None,
    truth: Method | None = None,
    shrink: bool = True,
) -> SearchResult:
    """Looks for inputs on which `fn(**inputs)` breaks `contract`.

    Every argument that `fn` has a parameter for is drawn, at its edges; one that it does not take
    stays at the operation's default.

    Args:
        strategies: Names from `strategy_names(contract)`, or a strategy of inputs by argument name.
        judge: By default `check`, the contract's enclosure.
        truth: How to compute true values for the histogram of errors; None keeps none.
        shrink: Whether a violation is worth simplifying.

    What `fn` raises is raised. RuntimeError where it gives other results for the same inputs.
    """
    attempt = _Attempt(fn, contract, judge or judge_by(contract), truth)
    taken = arguments_taken(fn, contract.op)
    sources = _sources(fn, contract, strategies)
    share = settings(
        max_examples=-(-profile.examples // len(sources)),
        phases=[phase for phase in Phase if shrink or phase is not Phase.shrink],
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    for source in sources:
        run: Callable[[], None] = share(hypothesis.given(source)(attempt.judge_one))
        if profile.seed is not None:
            run = hypothesis.seed(profile.seed)(run)
        try:
            run()
        except _Broken:
            break
        except Flaky as error:
            raise RuntimeError(
                f"{contract.op}: the implementation gives different results for the same inputs, "
                f"for instance for\n{attempt.broken.inputs if attempt.broken else None!r}"
            ) from error
    left_out = tuple(name for name in operation_called(contract.op).optional if name not in taken)
    return SearchResult(attempt.broken, attempt.tally, attempt.hardest, left_out)


def arguments_taken(fn: Implementation, op: str) -> frozenset[str]:
    """The operation's arguments that `fn` has a parameter for; all where it takes any."""
    known = frozenset(operation_called(op).arguments + operation_called(op).optional)
    parameters = _parameters(fn)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return known
    return known & frozenset(parameters)


def arguments_needed(fn: Implementation) -> frozenset[str]:
    """The names of the parameters without a default of `fn`'s own."""
    parameters = _parameters(fn) or {}
    return frozenset(name for name, p in parameters.items() if p.default is p.empty)


def _parameters(fn: Implementation) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(fn).parameters
    except (TypeError, ValueError):  # compiled functions that do not say
        return None


def _sources(
    fn: Implementation, contract: PrecisionContract, strategies: Strategies | None
) -> list[st.SearchStrategy[Any]]:
    """Every kind by itself, so that a short search still tries all of them."""
    if isinstance(strategies, st.SearchStrategy):
        return [strategies]
    taken, needed = arguments_taken(fn, contract.op), arguments_needed(fn)
    names = strategy_names(contract, taken) if strategies is None else strategies
    return [
        inputs_for(contract, strategies=[name], arguments=taken, needed=needed) for name in names
    ]


class _Attempt:
    """One search under way."""

    def __init__(
        self, fn: Implementation, contract: PrecisionContract, judge: Judge, truth: Method | None
    ) -> None:
        self.fn, self.contract, self.judge, self.truth = fn, contract, judge, truth
        self.tally = Tally(contract)
        self.hardest: Mapping[str, Any] | None = None
        self.broken: Violation | None = None

    def judge_one(self, inputs: Mapping[str, Any]) -> None:
        actual = self.fn(**_copies(inputs))
        verdict = self.judge(actual, inputs)
        if verdict.violations:
            before = self.broken.witnesses[: _WITNESSES - 1] if self.broken else ()
            self.broken = Violation(inputs, actual, verdict, (*before, (inputs, actual)))
            raise _Broken
        if self.hardest is None or verdict.utilisation > self.tally.utilisation:
            self.hardest = inputs
        exact = None
        if self.truth is not None:
            exact = reference(self.contract.op, inputs, self.truth).value
        self.tally.add(actual, verdict, exact)
        # Far from the bound utilisation is flat; the error itself then leads to the ties.
        for label in ("utilisation", "max_ulp_error"):
            if math.isfinite(getattr(verdict, label)):
                hypothesis.target(getattr(verdict, label), label=label)


def _copies(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the implementation may overwrite without touching what it is judged by."""
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
