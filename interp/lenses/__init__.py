"""Lenses: what a residual stream would say if it were the last one."""

from .jacobian import JacobianLens, fit_jacobian_lens
from .lens import LogitLens
from .reading import LensReading, read_lens
from .tuned import TunedLens

__all__ = [
    "JacobianLens",
    "LensReading",
    "LogitLens",
    "TunedLens",
    "fit_jacobian_lens",
    "read_lens",
]
