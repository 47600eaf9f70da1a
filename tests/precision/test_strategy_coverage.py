"""The search draws what the contract covers: every argument, and every edge its input check allows.

For each operation the classes below are filtered by the input check itself: what it refuses need
not be drawn, and what it takes must be, within two searches of the CI profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import hypothesis
import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.inputs import InputsError
from bitlens.precision.operations import OPERATIONS, validate_inputs
from bitlens.precision.search import PROFILES, arguments_taken, search
from bitlens.precision.strategies import inputs_for, strategy_names
from hypothesis import HealthCheck, Phase, settings
from support.argument_classes import argument_classes

Tensor = torch.Tensor
Inputs = Mapping[str, Any]
STORAGE = "bf16"


@cache
def _drawn(op: str) -> tuple[Inputs, ...]:
    """Twice as many inputs as a search of the CI profile draws, kind by kind."""
    contract = PrecisionContract(op, storage=STORAGE)
    drawn: list[Inputs] = []

    def take(inputs: Inputs) -> None:
        drawn.append(inputs)

    names = strategy_names(contract)
    share = settings(
        max_examples=-(-2 * PROFILES["ci"].examples // len(names)),
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for name in names:
        run = share(hypothesis.given(inputs_for(contract, strategies=[name]))(take))
        hypothesis.seed(PROFILES["ci"].seed)(run)()
    return tuple(drawn)


def _allowed(op: str, inputs: dict[str, Any]) -> bool:
    try:
        validate_inputs(op, inputs)
    except InputsError:
        return False
    return True


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_argument_and_edge_that_the_check_allows_is_drawn(op: str) -> None:
    drawn = _drawn(op)
    classes = [c for c in argument_classes(op) if _allowed(op, c[3])]
    assert {name for name, *_ in classes} == {
        *OPERATIONS[op].arguments, *OPERATIONS[op].optional
    }, "an argument without classes"  # fmt: skip
    missing = [f"{name}: {label}" for name, label, seen, _ in classes if not any(map(seen, drawn))]
    assert not missing, f"{op}: no strategy draws {'; '.join(missing)}"


def test_a_class_that_no_strategy_draws_is_noticed() -> None:
    """The control: random logits alone are never masked."""
    drawn = _drawn("softmax")[:12]  # those of the first kind
    seen = {label: has for name, label, has, _ in argument_classes("softmax")}
    assert not any(map(seen["-inf"], drawn))
    assert not any(map(seen["all masked"], drawn))


def test_an_implementation_without_an_argument_is_not_given_it() -> None:
    """And the result says what was left out."""

    def plain(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        group = q.shape[-3] // k.shape[-3]
        keys, values = (x.double().repeat_interleave(group, -3) for x in (k, v))
        return ((q.double() @ keys.mT * scale).softmax(-1) @ values).float()

    contract = PrecisionContract("attention")
    assert arguments_taken(plain, "attention") == {"q", "k", "v", "scale"}
    result = search(plain, contract, strategies=["random", "attention_sinks"])
    assert result.violation is None
    taken = {"q", "k", "v", "scale"}
    assert set(result.left_out) == {*OPERATIONS["attention"].optional} - taken
    assert {"causal", "cap", "mask", "sinks"} < set(result.left_out)

    def tables(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.double().chunk(2, -1)
        c, s = cos.double(), sin.double()
        return torch.cat([first * c - second * s, second * c + first * s], -1).float()

    assert search(tables, PrecisionContract("rope")).violation is None
    everything = {*OPERATIONS["rope"].arguments, *OPERATIONS["rope"].optional}
    assert arguments_taken(lambda **inputs: inputs["x"], "rope") == everything
