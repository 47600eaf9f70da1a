"""The alarm of a monitor whose probe's score passes the threshold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

DecidedBy = Literal["score", "fp32", "undecided"]
"""The running model's score; that of the fp32 model, where the first was too near the threshold;
or nothing: the score was too near, and there was no fp32 model to ask."""


@dataclass(frozen=True)
class Explanation:
    """A score as a sum of terms, each in fp64. Their exact sum, rounded to fp32, is the score.

    Attributes:
        features: The features of the dictionary that were active, by the size of what they add.
        contributions: What each adds: its activations, weighted as the aggregate weighs tokens,
            times the probe's direction along its decoder row.
        error: What the part of the activations adds that the dictionary does not reconstruct.
        bias: What the intercept and the dictionary's bias add.
        rounding: What fp32 arithmetic adds.
        rounding_bound: The most that `rounding` can be.
        tokens: Positions of the tokens that the score counts, by the size of what they add.
        token_shares: What each adds: its own score, weighted as the aggregate weighs it, in fp64;
            they sum to the score but for rounding.
    """

    features: tuple[int, ...]
    contributions: tuple[float, ...]
    error: float
    bias: float
    rounding: float
    rounding_bound: float
    tokens: tuple[int, ...] = ()
    token_shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Alarm:
    """One score above a threshold.

    Attributes:
        monitor: The monitor's name.
        row: The sequence, as rows of GenerateOutput are counted.
        position: Where the token stands in its sequence, the prompt's first token at 0.
        token_id: The token whose score it is.
        score: fp32, of the conversation up to this token.
        threshold: What it exceeds.
        decided_by: "score", "fp32" or "undecided".
        step: The pass it was raised in, 0 for the prompt.
        tokens: The sequence so far, to this token.
        explanation: Where the monitor was given a dictionary.
        error: What the monitor's own function raised, as text; None if it did not.
    """

    monitor: str
    row: int
    position: int
    token_id: int
    score: float
    threshold: float
    decided_by: DecidedBy
    step: int
    tokens: tuple[int, ...]
    explanation: Explanation | None = None
    error: str | None = None

    def with_error(self, error: BaseException) -> Alarm:
        """Returns the alarm with what its function raised."""
        return replace(self, error=f"{type(error).__name__}: {error}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON holds them, without the sequence's tokens.

        A threshold that is infinite becomes None.
        """
        found = asdict(self)
        del found["tokens"]
        found["threshold"] = self.threshold if math.isfinite(self.threshold) else None
        return found
