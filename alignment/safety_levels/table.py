"""The table of levels: refusals, abilities, times, and what was shown of their differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

ALPHA = 0.05


@dataclass(frozen=True)
class Line:
    """A level's verdicts on one kind of prompt.

    Attributes:
        template: "plain", a template's id, or all of them.
        refusal, answer, nonsense: Shares; `low` and `high` are the interval of `refusal`.
    """

    level: str
    kind: str
    template: str
    n: int
    refusal: float
    answer: float
    nonsense: float
    low: float
    high: float


@dataclass(frozen=True)
class Times:
    """Medians over the prompts that were timed.

    Attributes:
        ttft_ms: Until the first token can be shown.
        token_ms: For each later one; 0 where all come at once.
    """

    ttft_ms: float
    token_ms: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """A level against the first one, on the same prompts.

    Attributes:
        difference: Of refusals, or of right answers, with its paired and clustered interval, at 95%
            for all tasks of a level together (Bonferroni).
        holm_p: Exact p-value, adjusted for the number of tasks (Holm).
        detectable: The true difference that this run would have shown with probability 0.8, at the
            level of that interval.
    """

    level: str
    task: str
    n: int
    difference: float
    low: float
    high: float
    holm_p: float
    detectable: float

    @property
    def shown(self) -> str:
        """Returns "more", "less" or "not shown"."""
        if self.holm_p >= ALPHA:
            return "not shown"
        return "more" if self.difference > 0 else "less"


@dataclass(frozen=True)
class LevelsReport:
    """Several levels of safety.

    Attributes:
        lines: A line a level, kind and template.
        abilities: By level: shares of right sums, instructions and facts, and calibration.
        times: By level; None of one that is no model of ours. They are no part of what is fixed.
        comparisons: Of each level with the first.
        n: Prompts asked for in a cell.
        unpaired_detectable: The difference that two cells of n would show unpaired.
    """

    lines: tuple[Line, ...]
    abilities: Mapping[str, dict[str, Any]]
    times: Mapping[str, Times | None]
    comparisons: tuple[Comparison, ...]
    n: int
    unpaired_detectable: float

    def table(self) -> list[dict[str, Any]]:
        """Returns the lines as JSON-ready data, with the level's time to the first token."""
        return [{**asdict(line), "ttft_ms": self._ttft(line.level)} for line in self.lines]

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON-ready data, without texts."""
        return {
            "table": self.table(),
            "abilities": dict(self.abilities),
            "times": {k: None if v is None else asdict(v) for k, v in self.times.items()},
            "comparisons": [{**asdict(c), "shown": c.shown} for c in self.comparisons],
            "n": self.n,
            "unpaired_detectable": self.unpaired_detectable,
        }

    def remarks(self) -> list[str]:
        """Returns, in words, what was shown against the first level, abilities, and the power."""
        said = []
        for c in self.comparisons:
            figures = f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"
            if c.shown == "not shown":
                figures += f", not shown (a true {c.detectable:.3f} would have been, at power 0.8)"
            said.append(f"{c.level}, {c.task}: {figures}")
        for level, found in self.abilities.items():
            shares = [f"{k} {v['value']:.2f}" for k, v in found.items() if "value" in v]
            measured = found.get("calibration", {})
            shares += [f"{name} {value:.3f}" for name, value in measured.items()]
            said.append(f"{level}: {', '.join(shares)}")
        for level, times in self.times.items():
            if times is not None:
                said.append(
                    f"{level}: first token after {times.ttft_ms:.0f} ms, each later one "
                    f"{times.token_ms:.1f} ms (medians of {times.n})"
                )
        said.append(
            f"Unpaired, {self.n} prompts a cell would show a difference of "
            f"{self.unpaired_detectable:.2f} with probability 0.8."
        )
        return said

    def _ttft(self, level: str) -> float | None:
        times = self.times[level]
        return None if times is None else times.ttft_ms
