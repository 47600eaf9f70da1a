"""Student's t distribution, central and not."""

from __future__ import annotations


def t_cdf(t: float, degrees: float) -> float:
    """Returns P(T <= t) for Student's t. Raises ValueError for degrees <= 0."""
    if degrees <= 0:
        raise ValueError(f"t_cdf: {degrees} degrees of freedom")
    from scipy.special import stdtr

    return float(stdtr(degrees, t))


def t_quantile(probability: float, degrees: float) -> float:
    """Returns the t with t_cdf(t, degrees) = probability.

    Raises ValueError unless 0 < probability < 1 and degrees > 0.
    """
    if not (0 < probability < 1 and degrees > 0):
        raise ValueError(f"t_quantile: probability {probability}, {degrees} degrees of freedom")
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def noncentral_t_above(t: float, degrees: float, shift: float) -> float:
    """Returns P((Z + shift) / sqrt(V / degrees) > t), Z normal, V chi-squared with `degrees`.

    Raises ValueError for fewer than 2 degrees of freedom.
    """
    if degrees < 2:
        raise ValueError(f"noncentral_t_above: {degrees} degrees of freedom, expected at least 2")
    from scipy.special import nctdtr

    return 1 - float(nctdtr(degrees, shift, t))
