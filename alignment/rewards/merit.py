"""Whether a reward model knows more than an answer's length and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...precision.statistics import clustered_mean
from ..preferences.pairs import AnswerPair
from .baselines import LengthScore, Score, WordScore


class NoMerit(ValueError):
    """A reward that is not shown to be better than a baseline was about to be optimised."""


@dataclass(frozen=True)
class Lead:
    """The accuracy of a reward, less that of a baseline, on the same pairs.

    Attributes:
        difference, low, high: With its paired, clustered 95% interval.
    """

    baseline: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Merit:
    """A reward on held-out pairs.

    Attributes:
        accuracy: The share of pairs whose better answer has the higher score; a tie is half.
        leads: Against each baseline.
        passed: Whether every lead's interval lies above 0.
    """

    accuracy: float
    n: int
    leads: dict[str, Lead]
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)

    def require(self) -> None:
        """Raises NoMerit where a baseline may be as good."""
        for name, lead in self.leads.items():
            if not lead.low > 0:
                raise NoMerit(
                    f"reward: right in {self.accuracy:.1%} of {self.n} held-out pairs, {name} "
                    f"alone in {lead.baseline:.1%}; the difference lies within [{lead.low:+.1%}, "
                    f"{lead.high:+.1%}], so optimising it may optimise that. Take more or better "
                    "pairs"
                )


def merit(reward: Score, train: Sequence[AnswerPair], held_out: Sequence[AnswerPair]) -> Merit:
    """Compares a reward with the baselines, which are fitted to the pairs it was trained on.

    Raises ValueError for pairs in both sets, held-out pairs whose truth is not known, and fewer
    than two clusters.
    """
    if shared := sorted({p.id for p in train} & {p.id for p in held_out}):
        raise ValueError(f"held_out: pair {shared[0]!r} was trained on")
    known = [pair for pair in held_out if pair.truth is not None and pair.truth != 0.5]
    if not known:
        raise ValueError("held_out: no pair has a truth")
    baselines: Mapping[str, Score] = {
        "length": LengthScore.fitted(train),
        "words": WordScore.fitted(train),
    }
    clusters = [pair.cluster for pair in known]
    own = [_hit(reward, pair) for pair in known]
    leads = {}
    for name, baseline in baselines.items():
        hits = [_hit(baseline, pair) for pair in known]
        found = clustered_mean([a - b for a, b in zip(own, hits, strict=True)], clusters)
        interval = found.interval
        leads[name] = Lead(sum(hits) / len(hits), found.mean, interval.low, interval.high)
    passed = all(lead.low > 0 for lead in leads.values())
    return Merit(sum(own) / len(own), len(own), leads, passed)


def _hit(score: Score, pair: AnswerPair) -> float:
    gap = score(pair.prompt, pair.first) - score(pair.prompt, pair.second)
    assert pair.truth is not None, "pairs of known truth"
    side = gap * (pair.truth - 0.5)
    return 1.0 if side > 0 else 0.5 if side == 0 else 0.0
