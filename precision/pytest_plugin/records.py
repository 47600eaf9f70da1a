"""The findings of a precision test, as plain data that travels in pytest's reports."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from ..contract import PrecisionContract
from ..fault_score import FaultScore
from ..search import SearchResult


def record_of(
    name: str, contract: PrecisionContract, result: SearchResult, score: FaultScore | None
) -> dict[str, Any]:
    """JSON of one implementation's search; numbers that are not finite become None."""
    tally = result.tally
    record: dict[str, Any] = {
        "implementation": name,
        "contract": asdict(contract) | {"casts": list(contract.casts)},
        "ok": result.failure is None,
        "inputs": tally.examples,
        "outputs": tally.outputs,
        "claimed": tally.claimed,
        "left_out": list(result.left_out),
        "utilisation": finite(tally.utilisation),
        "largest_ulp": finite(tally.largest_ulp),
        "bias_ulp": finite(tally.bias_ulp),
        "histogram": tally.histogram,
        "hardest": repr(result.hardest) if result.hardest is not None else None,
        "condition": None,
        "violation": None,
        "faults": None,
    }
    if result.violation is not None:
        verdict = result.violation.verdict
        record["largest_ulp"] = finite(max(tally.largest_ulp, verdict.max_ulp_error))
        record["violation"] = {
            "reason": verdict.reason,
            "where": list(verdict.where or ()),
            "elements": verdict.elements,
            "claimed": verdict.claimed,
            "violations": verdict.violations,
            "utilisation": finite(verdict.utilisation),
            "ulp": finite(verdict.max_ulp_error),
            "explanation": None,
            "faults": None,
        }
    if score is not None:
        record["faults"] = {
            "caught": list(score.caught),
            "missed": list(score.missed),
            "indistinguishable": dict(score.indistinguishable),
            "score": score.score,
        }
    return record


def finite(x: float) -> float | None:
    """x, or None where JSON has no number for it."""
    return x if math.isfinite(x) else None
