"""Lenses: what a residual stream would say if it were the last one."""

from .jacobian import JacobianLens, fit_jacobian_lens
from .lens import LogitLens

__all__ = ["JacobianLens", "LogitLens", "fit_jacobian_lens"]
