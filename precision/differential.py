"""Differential testing: an implementation against its contract, and against another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .binding import ExampleCall, Names, bind
from .contract import PrecisionContract
from .explanation import explain
from .judges import Judge, judge_by
from .oracle import Verdict, check
from .reproducer import contract_code, reproducer
from .search import PROFILES, Implementation, Profile, SearchResult, Strategies, Violation, search


class ReferenceBroken(ValueError):
    """The reference of a differential test does not keep the contract itself."""


def differential_test(
    fn: Implementation,
    *,
    contract: PrecisionContract,
    reference: Implementation | None = None,
    strategies: Strategies | None = None,
    profile: Profile = PROFILES["ci"],
    names: Names | ExampleCall | None = None,
    result: int | str | None = None,
    out: str | None = None,
) -> SearchResult:
    """Searches for inputs on which `fn(**inputs)` breaks `contract`; AssertionError if it does.

    The truth is the contract's enclosure of the real value. A `reference`, another implementation
    of the operation, is held to the same contract on the same inputs: two results may differ, as
    long as neither is wrong. ReferenceBroken where it is the reference that is.

    Args:
        strategies: Names from `strategy_names(contract)`, or a Hypothesis strategy of dicts.
        profile: How many inputs to try.
        names, result, out: How `fn` is called and where its output is, as `bind` takes them.

    The message holds the shrunk inputs as a script, and the fault that explains them best.
    """
    judge = None if reference is None else _beside(reference, contract)
    if names is not None or result is not None or out is not None:
        fn = bind(fn, contract, names, result=result, out=out)
    found = search(fn, contract, strategies=strategies, profile=profile, judge=judge)
    if found.violation is not None:
        raise AssertionError(describe(found.violation, contract, fn))
    if found.failure is not None:
        raise AssertionError(found.failure)
    return found


def describe(violation: Violation, contract: PrecisionContract, fn: Implementation) -> str:
    """Returns what is wrong, what explains it, and a script that shows it."""
    lines = [f"{getattr(fn, '__qualname__', repr(fn))} breaks {contract_code(contract)}"]
    lines += [violation.verdict.reason]
    if cause := explain(violation, contract):
        lines += [cause.sentence]
    return "\n".join([*lines, "", "To reproduce:", "", reproducer(violation, contract)])


def _beside(reference: Implementation, contract: PrecisionContract) -> Judge:
    judge_fn = judge_by(contract)

    def judge(actual: torch.Tensor, inputs: Mapping[str, Any]) -> Verdict:
        expected = check(reference(**inputs), inputs, contract)
        if expected.violations:
            raise ReferenceBroken(
                f"the reference breaks {contract_code(contract)}: {expected.reason}"
            )
        return judge_fn(actual, inputs)

    return judge
