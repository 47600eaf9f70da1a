"""A priori bounds on what honest rounding can do, in closed form, for every operation."""

from ..arithmetic.growth import gamma, gamma_probabilistic
from .error_bound import error_bound
from .tensor_core import tensor_core_dot_bound

__all__ = ["error_bound", "gamma", "gamma_probabilistic", "tensor_core_dot_bound"]
