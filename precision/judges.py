"""The ways to judge an output: the contract's enclosure, or a closed-form bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch

from .bounds import error_bound
from .contract import PrecisionContract
from .exact import Method, reference
from .oracle import Verdict, check

Bound = Literal["enclosure", "worst_case", "probabilistic"]
Judge = Callable[[torch.Tensor, Mapping[str, Any]], Verdict]


def judge_by(
    contract: PrecisionContract, bound: Bound = "enclosure", method: Method = "fp64"
) -> Judge:
    """A judge of outputs: (actual, inputs) -> Verdict.

    "enclosure" is `check`. "worst_case" asks whether the output lies within `error_bound` of the
    true value, computed by `method`: as proven, but blind to rounding that is too precise.
    "probabilistic" bounds hold nearly always, so honest code may exceed them: the verdict stays
    the enclosure's, and the utilisation alone is the bound's.
    """
    if bound not in get_args(Bound):
        raise ValueError(f"bound {bound!r} is none of {', '.join(get_args(Bound))}")

    def judge(actual: torch.Tensor, inputs: Mapping[str, Any]) -> Verdict:
        verdict = check(actual, inputs, contract)
        if bound == "enclosure" or not verdict.elements:
            return verdict
        truth = reference(contract.op, inputs, method)
        room = error_bound(contract, inputs, bound) + truth.error
        share = _share(actual.detach().to("cpu", torch.float64), truth.value, room)
        if bound == "probabilistic":
            return dataclasses.replace(verdict, utilisation=float(share.max()))
        return _bounded(actual, share, verdict, contract)

    return judge


def _share(actual: torch.Tensor, truth: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """|actual - truth| / room; 0 where the bound says nothing, inf for a needless inf or NaN."""
    distance = (actual - truth).abs()
    share = torch.where(distance == 0, 0.0, distance / room)
    share = torch.where(actual.isfinite(), share, torch.inf)
    return torch.where(room.isfinite(), share, 0.0)


def _bounded(
    actual: torch.Tensor, share: torch.Tensor, verdict: Verdict, contract: PrecisionContract
) -> Verdict:
    index = torch.unravel_index(share.flatten().argmax(), share.shape)
    where = tuple(int(i) for i in index)
    used, violations = float(share[where]), int((share > 1).sum())
    return dataclasses.replace(
        verdict,
        ok=violations == 0 and verdict.claimed > 0,
        utilisation=used,
        where=where,
        violations=violations,
        reason=f"{contract.op}{list(where)} = {actual[where].item()!r} uses {used:.3g} of the "
        "worst-case bound around the true value",
    )
