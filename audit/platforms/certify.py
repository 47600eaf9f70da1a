"""A platform's row as an `EquivalenceCertificate`: what is proved, measured, statistical."""

from __future__ import annotations

import json
import math
from typing import Any

from ...precision.certificate import (
    EquivalenceCertificate,
    Measured,
    Proved,
    Statistical,
    Subject,
    Workload,
)
from ...precision.statistics import Equivalence, Estimate
from .distance import Distance


def certificate(
    model: str,
    platform: str,
    policy: str,
    workload: Workload,
    distance: Distance,
    test: Equivalence,
    *,
    has_same_bits: bool,
) -> dict[str, Any]:
    """Returns it JSON-ready: run a is the fp64 reference, run b the platform's."""
    stated = EquivalenceCertificate(
        subject_a=Subject(f"{model}, fp64", "torch", "fp64"),
        subject_b=Subject(f"{model}, {platform}", platform, policy),
        workload=workload,
        proved=_proved(policy, len(distance.flips)) if has_same_bits else (),
        measured=_measured(distance),
        statistical=_statistical(distance, test),
    )
    found: dict[str, Any] = json.loads(stated.to_json())
    return found


def _proved(policy: str, positions: int) -> tuple[Proved, ...]:
    claim = f"logits have the bits of bitlens under {policy}"
    return (Proved(claim, ("the tokens are those of the workload",), positions, positions),)


def _measured(distance: Distance) -> tuple[Measured, ...]:
    following, positions = len(distance.token_errors), len(distance.flips)
    of = "difference of the next token's log-probability"
    return (
        Measured(f"root mean square {of}", distance.rms, "nats", following),
        Measured(f"largest {of}", distance.largest, "nats", following),
        Measured("mean exp |difference|", distance.mean_exp, "1", following),
        Measured("99% quantile of KL", distance.high_kl(), "nats", positions),
        Measured("argmax certified by margin", float(distance.certified), "positions", positions),
    )


def _statistical(distance: Distance, test: Equivalence) -> tuple[Statistical, ...]:
    size = (len(distance.flips), len(distance.errors))
    interval = test.interval
    return (
        Statistical(
            "error over the policy's own error, geometric mean",
            math.exp(test.estimate),
            math.exp(interval.low),
            math.exp(interval.high),
            1 - 2 * test.plan.alpha,
            *size,
            "Student's t of logarithms, prompts as clusters",
            test.plan.digest,
        ),
        _of("rate of token flips", distance.flip_rate(), size, "Korn-Graubard"),
        _of("mean KL", distance.mean_kl(), size, "Student's t"),
    )


def _of(quantity: str, found: Estimate, size: tuple[int, int], method: str) -> Statistical:
    low, high = found.interval.low, found.interval.high
    named = f"{method}, prompts as clusters"
    return Statistical(quantity, found.mean, low, high, 0.95, *size, named)
