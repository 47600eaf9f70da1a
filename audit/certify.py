"""The audit as an `EquivalenceCertificate`: what is proved, measured, statistical."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, Protocol

import torch

from ..precision.certificate import (
    ContractResult,
    EquivalenceCertificate,
    Measured,
    Proved,
    Statistical,
    Subject,
    Workload,
)
from .result import OpFinding, TokenFlips


class Judged(Protocol):
    """A path, as far as a certificate names it."""

    @property
    def name(self) -> str: ...

    @property
    def implementation(self) -> str: ...

    @property
    def policy(self) -> str: ...


def certificate(
    model: str,
    a: Judged,
    b: Judged,
    tokens_NP: torch.Tensor,
    ops: tuple[OpFinding, ...],
    flips: TokenFlips,
) -> dict[str, Any]:
    """JSON-ready; the same runs on the same machine give the same bytes."""
    stated = EquivalenceCertificate(
        subject_a=_subject(model, a),
        subject_b=_subject(model, b),
        workload=Workload.of(tokens_NP.tolist()),
        contracts={op.address: _contract_result(op) for op in ops},
        proved=_proved(b, ops, flips),
        measured=_measured(flips),
        statistical=_statistical(flips),
    )
    found: dict[str, Any] = json.loads(stated.to_json())
    return found


_END = ("ln_final", "unembed")
_UNPROVEN = "the final norm or the unembedding broke its contract, so that no position is certified"


def only_proven_by(ops: tuple[OpFinding, ...], flips: TokenFlips) -> TokenFlips:
    """Returns the flips without certificates whose premise, those contracts, turned out broken."""
    if all(op.ok for op in ops if op.address in _END):
        return flips
    premises = (*flips.premises, _UNPROVEN)
    return replace(flips, certified=0, proven=0, broken_certificates=0, premises=premises)


def _subject(model: str, path: Judged) -> Subject:
    return Subject(f"{model}, {path.name}", path.implementation, path.policy)


def _contract_result(op: OpFinding) -> ContractResult:
    used = op.utilisation if math.isfinite(op.utilisation) else None
    return ContractResult(op.contract, op.values, op.outside, used, op.bias_ulp)


def _proved(b: Judged, ops: tuple[OpFinding, ...], flips: TokenFlips) -> tuple[Proved, ...]:
    """A contract check proves its claim of the values checked, not of others."""
    values = sum(op.values for op in ops)
    outside = sum(op.outside for op in ops)
    claim = f"values computed by {b.name} lie within what their operation's contract permits"
    premises = ("the inputs and outputs checked are those of this run",)
    token = "the next token has not changed"
    kept = (Proved(claim, premises, values - outside, values),) if ops else ()
    return (*kept, Proved(token, flips.premises, flips.proven, flips.positions))


def _measured(flips: TokenFlips) -> tuple[Measured, ...]:
    n = flips.positions
    return (
        Measured("token flips", float(flips.flips), "positions", n),
        Measured("argmax certified by margin", float(flips.certified), "positions", n),
        Measured("mean KL of next-token distributions", flips.mean_kl, "nats", n),
    )


def _statistical(flips: TokenFlips) -> tuple[Statistical, ...]:
    low, high = flips.interval
    clustered_low, clustered_high = flips.clustered_interval
    kl_low, kl_high = flips.kl_interval
    size = (flips.positions, flips.prompts)
    rate = "rate of token flips"
    return (
        Statistical(rate, flips.rate, low, high, 0.95, *size, "Clopper-Pearson, positions"),
        Statistical(
            rate,
            flips.rate,
            clustered_low,
            clustered_high,
            0.95,
            *size,
            "Korn-Graubard, prompts as clusters",
            flips.equivalence.digest,
        ),
        Statistical(
            "mean KL",
            flips.mean_kl,
            kl_low,
            kl_high,
            0.95,
            *size,
            "Student's t, prompts as clusters",
        ),
    )
