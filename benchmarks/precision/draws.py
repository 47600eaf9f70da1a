"""Inputs as the CI profile draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings

from ...precision.contract import PrecisionContract
from ...precision.operations import OPERATIONS
from ...precision.strategies import inputs_for, strategy_names

_TAKEN_BY_FEW = {"attention": {"mask", "bias", "sinks", "slopes", "empty"}}
"""Arguments that bitlens's kernels and eager Llama do not take."""


def examples(contract: PrecisionContract, n: int, seed: int) -> list[Mapping[str, Any]]:
    """At least `n` inputs in equal parts of every kind, as a search without a target draws them."""
    drawn: list[Mapping[str, Any]] = []

    def take(inputs: Mapping[str, Any]) -> None:
        drawn.append(inputs)

    operation = OPERATIONS[contract.op]
    taken = {*operation.arguments, *operation.optional} - _TAKEN_BY_FEW.get(contract.op, set())
    names = strategy_names(contract, taken)
    share = settings(
        max_examples=-(-n // len(names)),
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for name in names:
        strategy = inputs_for(contract, strategies=[name], arguments=taken, needed=taken)
        run = share(hypothesis.given(strategy)(take))
        hypothesis.seed(seed)(run)()
    return drawn
