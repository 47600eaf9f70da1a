"""Rows with targets: the table that is printed and the JSON that is kept."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from .. import __version__, isa, numerics_version
from .race import Race, spread

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Target:
    """A bound on a row's value."""

    kind: Literal["at least", "at most"]
    value: float

    def met(self, value: float) -> bool:
        return value >= self.value if self.kind == "at least" else value <= self.value


def at_least(value: float) -> Target:
    return Target("at least", value)


def at_most(value: float) -> Target:
    return Target("at most", value)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured value.

    Attributes:
        what: What was measured, against whom.
        value, low, high: Median and quartiles over the rounds.
        unit: "x" for ratios.
        ours, peer: The two sides of a ratio in their own unit, for the reader.
        target: None where nothing was promised, or not for this machine.
        needs: What a machine must have to judge the row, where this one has it not.
        command: Measures this row again.
        disturbed: Rounds during which other processes used the machine.
        details: Further numbers, kept in the JSON.
    """

    suite: str
    what: str
    value: float
    low: float
    high: float
    unit: str = "x"
    ours: str = ""
    peer: str = ""
    target: Target | None = None
    needs: str = ""
    command: str
    disturbed: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return f"needs {self.needs}" if self.needs else ""
        return "pass" if self.target.met(self.value) else "FAIL"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        data = {key: value for key, value in data.items() if key != "verdict"}
        target = data.pop("target")
        return cls(**data, target=target and Target(**target))

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def spread_row(values: list[float], **fields: Any) -> Row:
    """Returns a row of the values' median and quartiles."""
    middle = spread(values)
    return Row(value=middle.median, low=middle.low, high=middle.high, **fields)


def ratio_row(
    result: Race,
    numerator: tuple[str, str],
    denominator: tuple[str, str],
    **fields: Any,
) -> Row:
    """A row of the rounds' ratios; each side is (entry, metric)."""
    pairs = zip(result.values(*numerator), result.values(*denominator), strict=True)
    ratios = [above / below for above, below in pairs]
    details = {"ratios": ratios, "samples": result.samples, **fields.pop("details", {})}
    return spread_row(ratios, disturbed=result.disturbed, details=details, **fields)


def save(suite: str, rows: Sequence[Row], *, quick: bool) -> None:
    """Keeps rows, with the machine, in place of what the same commands measured before."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / (f"quick-{suite}.json" if quick else f"{suite}.json")
    runs = json.loads(path.read_text()) if path.exists() else {}
    for command, group in by_command(rows).items():
        runs[command] = {"machine": machine(), "rows": [row.to_json() for row in group]}
    path.write_text(json.dumps(runs, indent=1) + "\n")


def load_saved(suites: Iterable[str]) -> list[Row]:
    """The rows of the full runs that were kept."""
    paths = [path for suite in suites if (path := RESULTS / f"{suite}.json").exists()]
    runs = [run for path in paths for run in json.loads(path.read_text()).values()]
    return [Row.from_json(row) for run in runs for row in run["rows"]]


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = {line.partition(":")[2].strip() for line in info.split("\n") if "model name" in line}
    packages = {}
    for package in ("torch", "transformers", "transformer-lens", "llama-cpp-python", "xllamacpp"):
        try:
            packages[package] = version(package)
        except ModuleNotFoundError:
            continue
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": ", ".join(sorted(names)) or platform.processor(),
        "cores": os.cpu_count(),
        "bf16_instructions": [name for name in ("avx512_bf16", "amx_bf16") if name in info],
        "isa": isa(),
        "python": platform.python_version(),
        "bitlens": __version__,
        "numerics": numerics_version,
        **packages,
    }


_COLUMNS = ("what", "measured", "quartiles", "target", "", "bitlens", "peer")


def _cells(row: Row) -> tuple[str, ...]:
    target = f"{row.target.kind} {row.target.value:g}{_unit(row)}" if row.target else ""
    noisy = f" ({row.disturbed} disturbed)" if row.disturbed else ""
    return (
        row.what,
        f"{row.value:.3g}{_unit(row)}",
        f"{row.low:.3g} to {row.high:.3g}{noisy}",
        target,
        row.verdict,
        row.ours,
        row.peer,
    )


def _unit(row: Row) -> str:
    return row.unit if row.unit == "x" or not row.unit else f" {row.unit}"


def by_command(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows under the commands that measure them again."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.command, []).append(row)
    return groups


def tables(rows: Iterable[Row]) -> Iterator[Table]:
    """A table a command, for the terminal."""
    colours = {"pass": "green", "FAIL": "red", "": "dim"}
    for command, group in by_command(rows).items():
        out = Table(title=command, title_style="bold", title_justify="left")
        for column in _COLUMNS:
            out.add_column(column, overflow="fold")
        for row in group:
            *cells, verdict, ours, peer = _cells(row)
            out.add_row(*cells, f"[{colours.get(verdict, 'dim')}]{verdict}[/]", ours, peer)
        yield out


def markdown(rows: Iterable[Row]) -> str:
    """A table a command, as Markdown."""
    head = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    lines: list[str] = []
    for command, group in by_command(rows).items():
        lines += ["", f"`{command}`", "", *head]
        lines += [f"| {' | '.join(_cells(row))} |" for row in group]
    return "\n".join(lines[1:])
