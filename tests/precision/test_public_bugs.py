"""benchmarks/precision/public_bugs: caught on chosen inputs and by search; their twins are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitlens.benchmarks.precision.public_bugs.audited import audited
from bitlens.benchmarks.precision.public_bugs.bug import PublicBug
from bitlens.benchmarks.precision.public_bugs.bugs import BUGS
from bitlens.benchmarks.precision.public_bugs.outcome import measure
from bitlens.precision.operations import OPERATIONS
from bitlens.precision.oracle import check
from bitlens.precision.search import Profile, search

BY_REPORT = {bug.reports[0]: bug for bug in BUGS}
EACH = pytest.mark.parametrize("bug", BUGS, ids=BY_REPORT)
PAGE = Path(__file__).parents[2] / "docs" / "precision_power.md"


@EACH
def test_check_catches_the_bug_and_acquits_its_twin(bug: PublicBug) -> None:
    inputs = bug.inputs()
    right = check(bug.right(**inputs), inputs, bug.contract)
    assert right.ok, right.reason
    wrong = check(bug.wrong(**inputs), inputs, bug.contract)
    assert wrong.violations, wrong.reason


def test_every_operation_has_one() -> None:
    assert {bug.contract.op for bug in BUGS} == set(OPERATIONS)


SOONEST = Profile("soonest", 100)
QUICK = {
    "pytorch/pytorch#190491": ["small_numbers"],
    "tracel-ai/burn#5607": ["far_from_zero"],
    "microsoft/onnxruntime#29020": ["random"],
    "onnx/onnx#7865": ["random"],
    "sgl-project/sgl-kernel-xpu#491": ["random"],
    "tensorflow/tensorflow#11692": ["masked"],
    "huggingface/transformers#42746": ["extremes"],
}
"""What a search did not draw before, and the kind of inputs that shows it now."""


@pytest.mark.parametrize("report", QUICK)
def test_a_search_finds_what_it_never_drew(report: str) -> None:
    bug = BY_REPORT[report]
    found = search(bug.wrong, bug.contract, strategies=QUICK[report], profile=SOONEST, shrink=False)
    assert found.violation is not None


def test_lockstep_names_the_operation() -> None:
    assert audited(BY_REPORT["mlc-ai/mlc-llm#3426"])


def test_the_page_lists_every_bug_as_caught_and_every_twin_as_acquitted() -> None:
    rows = {
        cells[0].split(",")[0]: cells
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ") and len(cells := [c.strip() for c in line[1:-1].split("|")]) == 7
    }
    assert len(BUGS) >= 24
    assert set(BY_REPORT) <= set(rows)
    for report, bug in BY_REPORT.items():
        reports, summary, _, checked, _, by_audit, acquitted = rows[report]
        assert (reports, summary) == (", ".join(bug.reports), bug.summary)
        assert (checked, acquitted) == ("yes", "yes")
        assert by_audit == ("–" if bug.address is None else "yes")
    assert sum(rows[report][4].startswith("at input") for report in BY_REPORT) >= 20


@pytest.mark.nightly
@EACH
def test_every_bug_by_every_judge(bug: PublicBug) -> None:
    outcome = measure(bug)
    assert not outcome.failed
    assert outcome.examples is not None
    assert outcome.audited is not False
