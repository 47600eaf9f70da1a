"""The growth of rounding errors with the number of operations a value passes through.

Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, lemma 3.1 (worst case);
Higham and Mary, SIAM J. Sci. Comput. 41, 2019, theorem 2.4, with the mean independence that
Connolly, Higham and Mary, SIAM J. Sci. Comput. 43, 2021, show to suffice (probabilistic).
"""

from __future__ import annotations

import math


def gamma(n: int, u: float) -> float:
    """n u / (1 - n u): what n roundings of unit roundoff u can do, relatively; inf from n u = 1."""
    return n * u / (1 - n * u) if n * u < 1 else math.inf


def gamma_probabilistic(n: int, u: float, confidence: float) -> float:
    """exp(lambda sqrt(n) u + n u^2 / (1 - u)) - 1 with lambda = `confidence`.

    Holds with probability at least 1 - 2 exp(-lambda^2 (1 - u)^2 / 2) for rounding errors that are
    mean independent and of mean zero. Truncation, stagnation and errors of one sign are not: it
    says what to expect and is never alone a verdict.
    """
    return _expm1(confidence * math.sqrt(n) * u + n * u * u / (1 - u))


def confidence_for(failure_probability: float, events: int, u: float) -> float:
    """The lambda at which `events` bounds hold together but for `failure_probability`."""
    if not 0 < failure_probability < 1:
        raise ValueError(f"failure_probability = {failure_probability}: expected between 0 and 1")
    return math.sqrt(2 * math.log(2 * max(events, 1) / failure_probability)) / (1 - u)


def product_growth(n: int, u: float) -> float:
    """(1 - u)^-n - 1: the most that n factors 1 + d or 1 / (1 + d), |d| <= u, can add up to.

    At most gamma(n, u) where that is finite, and itself finite for every n.
    """
    return _expm1(-n * math.log1p(-u))


def _expm1(x: float) -> float:
    return math.expm1(x) if x < 700 else math.inf
