"""The accuracy of labels, their calibration, and what else they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..row_file import Row
from .pairs import AnswerPair

BINS = 10


@dataclass(frozen=True)
class LabelSummary:
    """Labels of pairs, beside the truth where it is known.

    Attributes:
        n, n_known: Pairs, and those whose truth is known.
        accuracy: The share of those whose better answer has more than half; a tie is wrong.
        straight, swapped: The accuracy of the first order alone, and of the second.
        ece: The expected calibration error over `BINS` bins of the better answer's probability.
        order_bias: The mean probability of (A) beyond a half.
        mass: The mean probability of "A" and "B" together.
        longer: The share of labels that prefer the longer answer, beside `truth_longer`, the share
            of truths that do; pairs of equal length count in neither.
        principles: Accuracy and number of pairs of each principle.
    """

    n: int
    n_known: int
    accuracy: float | None
    straight: float | None
    swapped: float | None
    ece: float | None
    order_bias: float
    mass: float
    longer: float | None
    truth_longer: float | None
    principles: dict[str, dict[str, float | int | None]]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


def summarise(rows: Sequence[Row], pairs: Sequence[AnswerPair]) -> LabelSummary:
    """Returns what labels are worth. `rows` and `pairs` go together one by one."""
    known = [row for row in rows if row["truth"] is not None and row["truth"] != 0.5]
    unequal = [
        (row, len(p.first) > len(p.second))
        for row, p in zip(rows, pairs, strict=True)
        if len(p.first) != len(p.second)
    ]
    principles = {
        name: {
            "n": sum(row["principle"] == name for row in rows),
            "accuracy": _accuracy([row for row in known if row["principle"] == name]),
        }
        for name in sorted({row["principle"] for row in rows})
    }
    return LabelSummary(
        n=len(rows),
        n_known=len(known),
        accuracy=_accuracy(known),
        straight=_accuracy(known, "p_straight"),
        swapped=_accuracy(known, "p_swapped"),
        ece=_calibration_error(known),
        order_bias=sum(row["order_bias"] for row in rows) / len(rows),
        mass=sum(row["mass"] for row in rows) / len(rows),
        longer=_share([(row["p_a"] > 0.5) == longer for row, longer in unequal]),
        truth_longer=_share(
            [(row["truth"] > 0.5) == longer for row, longer in unequal if row in known]
        ),
        principles=principles,
    )


def is_right(row: Row, name: str = "p_a") -> bool:
    """Whether a label is on the side of the truth; a tie is not."""
    return bool((row[name] - 0.5) * (row["truth"] - 0.5) > 0)


def _accuracy(rows: Sequence[Row], name: str = "p_a") -> float | None:
    return _share([is_right(row, name) for row in rows])


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _calibration_error(rows: Sequence[Row]) -> float | None:
    """The mean distance of confidence and accuracy, over bins of the confidence from 0.5 to 1."""
    if not rows:
        return None
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row in rows:
        confidence = max(row["p_a"], 1.0 - row["p_a"])
        number = min(BINS - 1, int((confidence - 0.5) * 2 * BINS))
        bins.setdefault(number, []).append((confidence, is_right(row)))
    gaps = [abs(sum(c for c, _ in each) - sum(hit for _, hit in each)) for each in bins.values()]
    return sum(gaps) / len(rows)
