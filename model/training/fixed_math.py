"""fp64 functions of losses whose bits no instruction set, thread or batch moves.

NumPy adds, multiplies and divides as IEEE says; exp and log are the core's, sums are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ... import _core

F64 = npt.NDArray[np.float64]


def exp(x: F64) -> F64:
    """Returns e^x, x kept within +-700."""
    x, y = np.ascontiguousarray(x, dtype=np.float64), np.empty(x.shape)
    _core.bounded_exp(x, x.size, y)
    return y


def softplus(x: F64) -> F64:
    """Returns log(1 + e^x), which is -log of the logistic function of -x."""
    x, y = np.ascontiguousarray(x, dtype=np.float64), np.empty(x.shape)
    _core.softplus(x, x.size, y)
    return y


def logistic(x: F64) -> F64:
    """Returns 1 / (1 + e^-x)."""
    return np.asarray(1.0 / (1.0 + exp(-x)))


def total(x: Iterable[float] | F64) -> float:
    """Returns the exact sum, rounded once."""
    return math.fsum(x.ravel().tolist() if isinstance(x, np.ndarray) else x)
