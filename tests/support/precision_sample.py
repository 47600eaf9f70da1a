"""A synthetic precision report, labelled as one: two tests, one of them broken."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bitlens.precision.contract import PrecisionContract
from bitlens.precision.faults import FAULTS
from bitlens.precision.tally import EDGES


def contents() -> dict[str, Any]:
    """Returns what the pytest plugin hands to its page."""
    return {
        "environment": {"bitlens": "0.0", "isa": "none", "cpu_model": "synthetic"},
        "options": {"profile": "ci", "reference": None, "bound": "enclosure", "faults": True},
        "tests": [_test(ok=True), _test(ok=False)],
        "certificate": {"schema": "synthetic"},
    }


def _test(*, ok: bool) -> dict[str, Any]:
    names = list(FAULTS)
    violation = {
        "reason": "1 of 8 outputs lies below the interval that the contract permits",
        "explanation": "a truncating cast gives these bits",
        "reproducer": "import torch\n"
        + "x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])  # long\n" * 3,
    }
    return {
        "test": f"tests/a_folder/another_folder/test_norms.py::test_{'kept' if ok else 'broken'}",
        "contract": asdict(PrecisionContract("rms_norm", storage="bf16")),
        "implementation": "kept_norm" if ok else "broken_norm_with_a_long_name_of_many_words",
        "ok": ok,
        "inputs": 200,
        "outputs": 51_200,
        "claimed": 51_200,
        "largest_ulp": 0.5,
        "bias_ulp": 0.0 if ok else None,
        "utilisation": 0.97 if ok else 1.4,
        "condition": 12.0,
        "faults": {
            "caught": names[:4],
            "missed": names[4:6],
            "indistinguishable": {names[6]: "the contract permits it"},
            "score": 0.67,
        },
        "violation": None if ok else violation,
        "hardest": "x = torch.tensor([1.0])",
        "histogram": [i % 7 for i in range(len(EDGES) + 1)],
        "left_out": [],
    }
