"""The pytest plugin from the outside: pytest run on a small suite, in a process of its own where
what is imported matters.
"""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser

import bitlens.precision.pytest_plugin
import jinja2
import pytest
from bitlens.precision.certificate import EquivalenceCertificate
from bitlens.precision.search import PROFILES, Profile

# Runs inside this process must find these imported: what they import themselves is forgotten again.
_SHARED = (bitlens.precision.pytest_plugin, jinja2)

pytest_plugins = ["pytester"]

SUITE = """
import pytest
import torch
from bitlens.precision.contract import PrecisionContract

CONTRACT = PrecisionContract("silu", storage="bf16")

def right(x):
    return torch.nn.functional.silu(x.float()).to(x.dtype)

def truncating(x):
    bits = torch.nn.functional.silu(x.float()).view(torch.int32) & -65536
    return bits.view(torch.float32).to(x.dtype)

@pytest.mark.precision(contract=CONTRACT, backends={"right": right, "truncating": truncating})
def test_silu(precision):
    precision.check()

@pytest.mark.precision(contract=CONTRACT, strategies=["constant"])
def test_one(precision):
    result = precision.check(right, name="alone")
    assert result.violation is None

def test_plain():
    pass
"""


class Run:
    """pytest on the suite."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makepyfile(SUITE)

    def __call__(self, *options: str, alone: bool = False) -> pytest.RunResult:
        """Inside this process, or in one of its own."""
        start = self.pytester.runpytest_subprocess if alone else self.pytester.runpytest_inprocess
        return start("-p", "bitlens_pytest", "-p", "no:cacheprovider", *options)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    return Run(pytester)


def test_passes_and_fails(run: Run) -> None:
    result = run(alone=True)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "truncating breaks PrecisionContract('silu', storage='bf16')",
            "*results break the contract; silu* lies outside of the permitted*",
            "To reproduce:",
            "*silu bf16 right: 1?? inputs, * outputs, at most 0.5 ULP*",
            "*silu bf16 truncating: BROKEN*",
        ]
    )
    assert "tell it from" not in result.stdout.str()

    _check_reproducer(run.pytester, result.stdout.str())


def _check_reproducer(pytester: pytest.Pytester, text: str) -> None:
    """It runs by itself and comes to the same verdict."""
    script = re.search(r"^import torch\n.*?^print\(check.*?$", text, re.MULTILINE | re.DOTALL)
    assert script is not None
    file = pytester.path / "reproducer.py"
    file.write_text(script[0])
    result = pytester.run(sys.executable, file)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["Verdict(ok=False*"])


def test_backends_are_chosen(run: Run) -> None:
    result = run("--precision-backends=right")
    result.assert_outcomes(passed=3)
    result = run("--precision-backends=right,truncating", "-k", "silu")
    result.assert_outcomes(passed=1, failed=1)


def test_localize_names_the_fault(run: Run) -> None:
    result = run("--precision-localize", "-k", "truncating")
    result.stdout.fnmatch_lines(
        ["truncating_cast (*) gives the bits of * and of 100% of all elements*"]
    )


def test_fault_score(run: Run) -> None:
    result = run("--precision-faults=all", "-k", "right")
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r".*right: .*(\d) of \1 faults caught"])


def test_too_low_a_fault_score_fails(run: Run) -> None:
    """Constants cannot show what only subnormals do."""
    faults = "--precision-faults=truncating_cast,flush_to_zero"
    result = run(faults, "--precision-min-fault-score=1", "-k", "one")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["the search catches 50% of the faults, 100% are asked for; missed: flush_to_zero"]
    )
    run(faults, "--precision-min-fault-score=0.5", "-k", "one").assert_outcomes(passed=1)


@pytest.mark.parametrize("bound", ["worst_case", "probabilistic"])
def test_bounds(run: Run, bound: str) -> None:
    """The worst-case bound counts a cast as half an ULP, so truncation breaks it too."""
    result = run(f"--precision-bound={bound}", "--precision-reference=exact", "-k", "silu")
    result.assert_outcomes(passed=1, failed=1)


def test_arb_reference(run: Run) -> None:
    pytest.importorskip("flint", reason="the arb reference needs python-flint")
    result = run("--precision-bound=worst_case", "--precision-reference=arb", "-k", "one")
    result.assert_outcomes(passed=1)


def test_nightly_tries_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PROFILES["nightly"].examples >= 5000
    monkeypatch.setitem(PROFILES, "nightly", Profile("nightly", 200, seed=None))
    result = run("--precision-profile=nightly", "-k", "one")
    inputs = re.search(r"alone: (\d+) inputs", result.stdout.str())
    assert inputs is not None
    assert 100 < int(inputs[1]) <= 300


def test_reports(run: Run) -> None:
    result = run(
        "--precision-report=html,json",
        "--precision-certificate=out/certificate.json",
        "--precision-faults=truncating_cast,fma_contraction",
        "--precision-localize",
        alone=True,
    )
    result.stdout.fnmatch_lines(["*wrote precision-report*report.json"])
    folder = run.pytester.path / "precision-report"
    report = json.loads((folder / "report.json").read_text())
    assert report["format"] == "bitlens.precision-report/1"
    tests = {test["implementation"]: test for test in report["tests"]}
    assert set(tests) == {"right", "truncating", "alone"}
    assert tests["right"]["ok"]
    assert abs(tests["right"]["bias_ulp"]) < 0.1
    assert tests["right"]["faults"]["caught"] == ["truncating_cast"]
    assert sum(tests["right"]["histogram"]) > 1000
    broken = tests["truncating"]["violation"]
    assert broken["faults"] == ["truncating_cast"]
    assert "DrawnInputs(" in broken["reproducer"]
    _check_page((folder / "report.html").read_text(), tests)
    text = (run.pytester.path / "out" / "certificate.json").read_text()
    certificate = EquivalenceCertificate.from_json(text)
    assert len(certificate.violated) == 1
    assert certificate.workload.positions == 0


@pytest.mark.parametrize("localize", [(), ("--precision-localize",)])
@pytest.mark.parametrize("bound", ["enclosure", "worst_case", "probabilistic"])
@pytest.mark.parametrize("faults", ["none", "truncating_cast"])
def test_options_combine(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    localize: tuple[str, ...],
    bound: str,
    faults: str,
) -> None:
    monkeypatch.setitem(PROFILES, "ci", Profile("ci", 4, seed=0))
    result = run(
        "--precision-report=html,json",
        f"--precision-bound={bound}",
        f"--precision-faults={faults}",
        *localize,
        "-k",
        "truncating or one",
    )
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    written = {path.suffix[1:]: path for path in (run.pytester.path / "precision-report").iterdir()}
    assert set(written) == {"html", "json"}
    for path in written.values():
        assert ("tell it from" in path.read_text()) == bool(localize)


def _check_page(html: str, tests: dict[str, object]) -> None:
    class Page(HTMLParser):
        open: list[str]
        links: list[str]

        def __init__(self) -> None:
            super().__init__()
            self.open, self.links = [], []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.links += [v for k, v in attrs if k in ("src", "href") and v is not None]
            if tag not in ("meta", "line", "rect", "br"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag in self.open:
                assert self.open.pop() == tag

    page = Page()
    page.feed(html)
    assert not page.open
    assert all(link.startswith("#") for link in page.links)
    assert all(name in html for name in tests)
    assert "1 of 3 implementations breaks its contract" in html


def test_pytest_starts_without_torch(run: Run) -> None:
    """An installed bitlens must not slow down everybody's pytest."""
    run.pytester.makeconftest(
        """
        import sys

        def pytest_collection_finish(session):
            heavy = {"torch", "hypothesis", "bitlens", "jinja2"} & set(sys.modules)
            print("heavy:", sorted(heavy))
        """
    )
    run.pytester.makepyfile(test_light="def test_plain(): pass")
    result = run("-s", "-p", "no:hypothesispytest", "test_light.py", alone=True)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*heavy: []*"])


def test_marker_is_known(run: Run) -> None:
    run("--strict-markers", "-k", "plain").assert_outcomes(passed=1, deselected=3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def test_it(precision): pass", "without @pytest.mark.precision"),
        (
            "@pytest.mark.precision(contract='rms_norm')\ndef test_it(precision): pass",
            "contract must be a PrecisionContract",
        ),
        ("@pytest.mark.precision()\ndef test_it(precision): pass", "missing 1 required"),
        (
            "from bitlens.precision.contract import PrecisionContract as P\n"
            "@pytest.mark.precision(contract=P('silu'))\n"
            "def test_it(precision): precision.check()",
            "give an implementation, or backends",
        ),
        (
            "from bitlens.precision.contract import PrecisionContract as P\n"
            "@pytest.mark.precision(contract=P('silu'), strategies=['exact_lattice'])\n"
            "def test_it(precision): precision.check(lambda x: x)",
            "exact_lattice: no strategy for silu",
        ),
    ],
)
def test_misuse_is_named(run: Run, body: str, message: str) -> None:
    run.pytester.makepyfile(test_misuse=f"import pytest\n{body}")
    result = run("test_misuse.py")
    assert result.ret != 0
    assert message in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--precision-faults=nonsense", "no such fault"),
        ("--precision-min-fault-score=2", "a share, from 0 to 1"),
        ("--precision-report=pdf", "html, json"),
        ("--precision-backends=nobody", "nobody"),
    ],
)
def test_bad_options_are_named(run: Run, option: str, message: str) -> None:
    result = run(option)
    assert result.ret != 0
    assert message in result.stdout.str() + result.stderr.str()
