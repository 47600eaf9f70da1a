"""The beta distribution, which the exact intervals stand on."""

from __future__ import annotations


def beta_cdf(x: float, a: float, b: float) -> float:
    """Returns P(X <= x) for X ~ Beta(a, b).

    Raises ValueError unless a, b > 0 and 0 <= x <= 1.
    """
    if not (a > 0 and b > 0 and 0 <= x <= 1):
        raise ValueError(f"beta_cdf: x = {x}, a = {a}, b = {b}: expected a, b > 0 and 0 <= x <= 1")
    from scipy.special import betainc  # takes 0.4 s to import

    return float(betainc(a, b, x))


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Returns the x with beta_cdf(x, a, b) = probability.

    Raises ValueError unless a, b > 0 and 0 <= probability <= 1.
    """
    if not (a > 0 and b > 0 and 0 <= probability <= 1):
        raise ValueError(
            f"beta_quantile: probability = {probability}, a = {a}, b = {b}: expected a, b > 0 and "
            "0 <= probability <= 1"
        )
    from scipy.special import betaincinv

    return float(betaincinv(a, b, probability))
