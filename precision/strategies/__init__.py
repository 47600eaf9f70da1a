"""Hypothesis strategies for finite-precision arithmetic, by bit patterns.

They shrink toward few significand bits, then exponent 0. Scalars are Python floats; tensors are
recipes: they build the same bits everywhere and print as code (`Recipe`).
"""

from ..extra import missing

try:
    import hypothesis as hypothesis
except ModuleNotFoundError as error:
    raise missing("bitlens.precision.strategies", "Hypothesis") from error

from .attention import attention_sinks
from .dot import DotFactor, gen_dot, ill_conditioned_dot
from .drawn import DrawnInputs
from .fills import Constant, Integers, Listed, Near, Random, Steps, Ties
from .floats import (
    bf16_values,
    float_values,
    near_ties,
    nonfinite,
    rounding_ties,
    signed_zeros,
    subnormals,
)
from .inputs import inputs_for, strategy_names
from .logits import repeated_max, router_ties, top2_collisions
from .positions import Composition, batch_compositions, long_rope_positions, tile_boundary_shapes
from .recipe import Edit, Recipe
from .tensors import exact_lattice, far_from_zero, massive_activations, wide_dynamic_range

__all__ = [
    "Composition",
    "Constant",
    "DotFactor",
    "DrawnInputs",
    "Edit",
    "Integers",
    "Listed",
    "Near",
    "Random",
    "Recipe",
    "Steps",
    "Ties",
    "attention_sinks",
    "batch_compositions",
    "bf16_values",
    "exact_lattice",
    "far_from_zero",
    "float_values",
    "gen_dot",
    "ill_conditioned_dot",
    "inputs_for",
    "long_rope_positions",
    "massive_activations",
    "near_ties",
    "nonfinite",
    "repeated_max",
    "rounding_ties",
    "router_ties",
    "signed_zeros",
    "strategy_names",
    "subnormals",
    "tile_boundary_shapes",
    "top2_collisions",
    "wide_dynamic_range",
]
