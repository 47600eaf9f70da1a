"""Unbiased estimates of what k samples give, from n >= k that were drawn.

Each is the mean over all subsets of k of the n samples, counted and not drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction


def pass_at_k(n: int, c: int, k: int) -> float:
    """Returns the probability that one of k samples is right, where c of n are.

    1 - C(n - c, k) / C(n, k) (Chen et al., arXiv:2107.03374, section 2.1). Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    _require_k(n, k)
    if not 0 <= c <= n:
        raise ValueError(f"c = {c}: expected 0 to n = {n} right samples")
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def maj_at_k(answers: Sequence[Hashable | None], k: int) -> Mapping[Hashable, float]:
    """Returns for each answer the probability that it has the most votes among k of the samples.

    Answers that tie for the most share the probability evenly. None is a sample without an answer
    and has no vote; where all k are such, nobody wins, and the shares sum to less than 1. The
    accuracy of majority voting on a problem is `maj_at_k(answers, k).get(truth, 0.0)`. Raises
    ValueError unless 1 <= k <= the number of answers.
    """
    n = len(answers)
    _require_k(n, k)
    counts = Counter(answer for answer in answers if answer is not None)
    silent = n - counts.total()
    total = math.comb(n, k)
    return {
        answer: float(
            sum(
                (
                    Fraction(math.comb(own, votes) * ways, ties + 1)
                    for votes in range(1, min(own, k) + 1)
                    for ties, ways in _others(counts, answer, silent, votes, k - votes).items()
                ),
                Fraction(0),
            )
            / total
        )
        for answer, own in counts.items()
    }


def best_of_n(scores: Sequence[float], right: Sequence[bool], n: int) -> float:
    """Returns the probability that the best-scored of n of the samples is right.

    Samples that tie for the best score share evenly: with equal scores it is the mean of `right`,
    and with the truth as score it is pass@n. Raises ValueError for lengths that differ, NaN, and
    unless 1 <= n <= their number.
    """
    if len(scores) != len(right):
        raise ValueError(f"{len(scores)} scores of {len(right)} samples")
    if any(math.isnan(score) for score in scores):
        raise ValueError("scores: one is NaN")
    _require_k(len(scores), n)
    found, below = Fraction(0), 0
    for score in sorted(set(scores)):
        own = [bool(r) for s, r in zip(scores, right, strict=True) if s == score]
        here = math.comb(below + len(own), n) - math.comb(below, n)
        found += Fraction(here * sum(own), len(own))
        below += len(own)
    return float(found / math.comb(below, n))


def _others(
    counts: Mapping[Hashable, int], answer: Hashable, silent: int, votes: int, left: int
) -> Mapping[int, int]:
    """Returns, by how many other answers have exactly `votes` votes, the ways to draw `left`
    samples without a vote or of other answers, none of which has more."""
    ways: dict[tuple[int, int], int] = {
        (drawn, 0): math.comb(silent, drawn) for drawn in range(min(silent, left) + 1)
    }
    for other, count in counts.items():
        if other == answer:
            continue
        wider: dict[tuple[int, int], int] = {}
        for (drawn, ties), number in ways.items():
            for more in range(min(count, votes, left - drawn) + 1):
                key = drawn + more, ties + (more == votes)
                wider[key] = wider.get(key, 0) + number * math.comb(count, more)
        ways = wider
    return {ties: number for (drawn, ties), number in ways.items() if drawn == left}


def _require_k(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 to {n}, the number of samples")
