"""The findings of an equivalence run: a row a platform."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .grades import Grade

FORMAT = "bitlens.equivalence-report/1"
"""The version of the JSON: it rises when a field changes its meaning or goes."""


@dataclass(frozen=True)
class PlatformRow:
    """One platform, judged.

    Attributes:
        grade: How much was shown.
        depth: What was looked at: "logits", or "operations" where they have addresses.
        positions: How many were looked at, over all prompts.
        rms, largest, mean_exp: Of the difference of the next token's log-probability from fp64.
        kl, kl_99: Mean and 99% quantile of KL(fp64 || platform), in nats.
        flips, flips_low, flips_high: Share of positions with another best token than fp64's, and
            its interval with prompts as clusters.
        certified: Share of positions where the best token could not have differed, by the measured
            distance.
        ratio, ratio_low, ratio_high: Geometric mean over prompts of its error over that of the
            policy's own rounding, and the interval of the test, at confidence 1 - 2 alpha.
        tost_p: That the ratio lies beyond the margin.
        is_different: Whether the whole interval lies beyond the margin.
        first_violation: The first operation outside its contract, or the first quantity derived
            otherwise; None where there is none or no address.
        remark: What to know of the platform on this checkpoint.
        certificate: The same as an `EquivalenceCertificate`, JSON-ready.
        error: What kept it from running.
    """

    platform: str
    what: str
    policy: str
    grade: Grade
    depth: str = "logits"
    positions: int | None = None
    rms: float | None = None
    largest: float | None = None
    mean_exp: float | None = None
    kl: float | None = None
    kl_99: float | None = None
    flips: float | None = None
    flips_low: float | None = None
    flips_high: float | None = None
    certified: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    tost_p: float | None = None
    is_different: bool = False
    first_violation: str | None = None
    remark: str | None = None
    certificate: dict[str, Any] | None = None
    error: str | None = None

    @property
    def verdict(self) -> str:
        """Returns the grade's name, and "different" where that was shown."""
        name = self.grade.name.lower().replace("_", " ")
        return f"{name}: different" if self.is_different else name


@dataclass(frozen=True)
class EquivalenceReport:
    """All platforms of one model.

    Attributes:
        margin: The factor that errors may differ by.
        digest: SHA-256 of the plan of the test, for whoever wants to publish it beforehand.
    """

    model: str
    prompts: int
    tokens: int
    margin: float
    alpha: float
    digest: str
    rows: tuple[PlatformRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data, grades by name."""
        found = asdict(self)
        found["rows"] = [row | {"grade": Grade(row["grade"]).name.lower()} for row in found["rows"]]
        return {"format": FORMAT} | found
