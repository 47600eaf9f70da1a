"""Scores of answers, which votes are weighted by and the best is chosen by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Thought:
    """One sample, as a scorer sees it.

    Attributes:
        prompt_ids: The prompt, thinking opened.
        thinking_ids, answer_ids: What followed.
        thinking, text: The same as text.
        answer: What was read out of the text.
        logprobs: The log-probability of each of the answer's tokens, as sampled.
    """

    prompt_ids: list[int]
    thinking_ids: list[int]
    answer_ids: list[int]
    thinking: str
    text: str
    answer: str | None
    logprobs: list[float]


class Scorer(Protocol):
    """A verifier, a reward model, a probe: anything that says how good a sample is."""

    def __call__(self, thought: Thought, /) -> float: ...


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def mean_logprob(
    aggregate: Callable[[Sequence[float]], float] = _mean,
) -> Callable[[Thought], float]:
    """Returns a scorer by the log-probabilities of the answer's tokens.

    Args:
        aggregate: Makes one number of them, in nats: their mean by default; `sum`, `min`, or
            `lambda values: values[-1]`. An answer without tokens scores -inf.
    """

    def score(thought: Thought) -> float:
        return float(aggregate(thought.logprobs)) if thought.logprobs else -math.inf

    return score
