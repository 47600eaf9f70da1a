"""Decides whether a difference between two implementations of an operation counts."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import torch

from ..addresses import Site
from ..contract import PrecisionContract
from ..formats import format_of
from .report import JudgeName
from .stream import Judge, never

JudgeChoice = Literal["auto", "bits", "relative", "contract"]


def judge_name(choice: JudgeChoice, a: Site, b: Site) -> JudgeName:
    """ "auto" is "bits" for one implementation under one contract, else "relative"."""
    if choice != "auto":
        return choice
    same = a.implementation == b.implementation and a.contract == b.contract
    return "bits" if same else "relative"


@cache
def relative_tolerance(a: PrecisionContract, b: PrecisionContract) -> float:
    """The relative error, in the 2-norm, that rounding alone explains when inputs are the same.

    A sum of about 1000 terms in the coarser accumulator, as a random walk: w = 32 u. Between equal
    formats that turns the output's rounding round for a share of about w / u of the elements.
    Between different ones the inputs and the output are rounded to the coarser of them. An estimate
    that sorts operations: to prove anything, judge by contract.
    """
    walk = 32 * max(format_of(c.accumulate).unit_roundoff for c in (a, b))
    storage = [format_of(c.storage).unit_roundoff for c in (a, b)]
    output = [c.output_format.unit_roundoff for c in (a, b)]
    coarsest = max(storage + output)
    if len(set(storage)) == len(set(output)) == 1:
        return walk + 2 * coarsest * math.sqrt(min(walk / coarsest, 1.0))
    return walk + 2 * coarsest


def contract_judge(choice: JudgeChoice) -> Judge:
    """The judge each pass applies to its own operations: only "contract" needs one."""
    return _by_contract if choice == "contract" else never


def _by_contract(
    site: Site, args: tuple[Any, ...], kwargs: dict[str, Any], y: torch.Tensor
) -> str | None:
    from ..oracle import check

    verdict = check(y, site.bind(*args, **kwargs), site.contract)
    return None if verdict.ok else f"{site.implementation}: {verdict.reason}"
