"""The pytest plugin's door: options, marker and fixture.

A module of its own beside the package, so that pytest starts without importing torch or Hypothesis;
what is behind the door, `bitlens.precision.pytest_plugin`, is imported by the first precision test.

    @pytest.mark.precision(contract=PrecisionContract("rms_norm", storage="bf16"))
    def test_my_norm(precision):
        precision.check(my_norm)  # called as my_norm(x=..., weight=..., eps=...)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bitlens.audit import Comparison
    from bitlens.precision.pytest_plugin import PrecisionTest

MARKER = (
    "precision(contract, backends=None, strategies=None, names=None, result=None, out=None): "
    "search for inputs on which an implementation breaks its PrecisionContract; backends is a dict "
    "of implementations by name, strategies names kinds of inputs; names, result and out say how "
    "it is called, as bitlens.precision.bind takes them"
)
PROPERTY = "bitlens_precision"
"""Under this name a test's record travels in its report, from worker processes too."""

_SESSION = "bitlens_precision_session"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("precision", "precision contracts (bitlens)")
    add = group.addoption
    add(
        "--precision-profile",
        choices=("ci", "nightly"),
        default="ci",
        help="how many inputs to try: 100 fixed ones, or 5000 fresh ones",
    )
    add(
        "--precision-backends",
        metavar="NAMES",
        help="of tests that name several backends, run these only (comma separated)",
    )
    add(
        "--precision-reference",
        choices=("fp64", "exact", "arb"),
        default="fp64",
        help="how to compute the true values that errors are measured from (arb: python-flint)",
    )
    add(
        "--precision-bound",
        choices=("enclosure", "worst_case", "probabilistic"),
        default="enclosure",
        help="what outputs are judged by: the contract's enclosure, or the closed-form worst-case "
        "bound around the reference; probabilistic judges by the enclosure and reports how much "
        "of the probabilistic bound was used",
    )
    add(
        "--precision-faults",
        metavar="NAMES",
        default="none",
        help="all, none, or names: see whether the search would have caught these faults",
    )
    add(
        "--precision-min-fault-score",
        metavar="SHARE",
        type=float,
        help="fail tests that catch a smaller share of the faults (alone it implies all of them)",
    )
    add(
        "--precision-localize",
        action="store_true",
        help="for every violation name the fault that would have given the same output, and the "
        "cast point that was added or left out",
    )
    add(
        "--precision-report",
        metavar="KINDS",
        help="html, json or both (comma separated): write a report",
    )
    add(
        "--precision-report-dir",
        metavar="DIR",
        default="precision-report",
        help="where to write report.html and report.json",
    )
    add(
        "--precision-certificate",
        metavar="FILE",
        help="write an equivalence certificate of the contracts that were tested",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    if unknown := _listed(config, "--precision-report") - {"html", "json"}:
        raise pytest.UsageError(f"--precision-report={','.join(unknown)}: use html, json or both")
    config.pluginmanager.register(_Session(config), _SESSION)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for every backend that the marker and the command line name."""
    marker = metafunc.definition.get_closest_marker("precision")
    backends = marker.kwargs.get("backends") if marker else None
    if not backends or "precision" not in metafunc.fixturenames:
        return
    session = metafunc.config.pluginmanager.get_plugin(_SESSION)
    assert isinstance(session, _Session)
    session.backends |= set(backends)
    chosen = _listed(metafunc.config, "--precision-backends") or set(backends)
    names = [name for name in backends if name in chosen]
    metafunc.parametrize("precision", names, indirect=True)


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> Iterator[PrecisionTest]:
    """The contract of this test, and `check` to hold an implementation to it."""
    from bitlens.precision.pytest_plugin import PrecisionTest

    marker = request.node.get_closest_marker("precision")
    if marker is None:
        raise pytest.UsageError(
            f"{request.node.nodeid} uses the fixture `precision` without "
            "@pytest.mark.precision(contract=...)"
        )
    test = PrecisionTest.of(marker, request.config, backend=getattr(request, "param", None))
    yield test
    for record in test.records:
        request.node.user_properties.append((PROPERTY, record))


@pytest.fixture
def compare_runs() -> Callable[..., Comparison]:
    """Returns `bitlens.audit.compare`, failing the test where the comparison does not pass.

    def test_nothing_got_worse(compare_runs):
        compare_runs("runs/before", "runs/after", margin=0.01)
    """
    from bitlens.audit import compare

    def compared(*runs: Any, **options: Any) -> Comparison:
        result = compare(*runs, **options)
        if not result.passed:
            tasks = result.worse if result.margin is None else result.not_shown_equivalent
            told = "worse" if result.margin is None else f"not shown within {result.margin:g}"
            pytest.fail(
                f"{told}: {', '.join(tasks)}; {result.difference:+.4f} in [{result.low:+.4f}, "
                f"{result.high:+.4f}], {result.lost} lost and {result.gained} gained of "
                f"{result.items}",
                pytrace=False,
            )
        return result

    return compared


class _Session:
    """Gathers the tests' records and, after the last, has them written."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.records: list[dict[str, Any]] = []
        self.backends: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """A name that no test knows would silently test nothing."""
        if unknown := _listed(self.config, "--precision-backends") - self.backends:
            raise pytest.UsageError(
                f"--precision-backends: no test has {', '.join(sorted(unknown))}; "
                f"there are {', '.join(sorted(self.backends)) or 'none'}"
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for name, record in report.user_properties:
                if name == PROPERTY and isinstance(record, dict):
                    self.records.append({**record, "test": report.nodeid})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.records:
            from bitlens.precision.pytest_plugin import write_results

            terminalreporter.section("precision")
            for line in write_results(self.records, self.config):
                terminalreporter.write_line(line)


def _listed(config: pytest.Config, option: str) -> set[str]:
    """The names in a comma-separated option."""
    return {name for name in (config.getoption(option) or "").split(",") if name}
