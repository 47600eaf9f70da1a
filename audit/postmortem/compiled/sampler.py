"""The sampler of the postmortem as one JAX program in bf16: what a compiler makes of its roundings.

Tensor names: B prompts, V vocabulary, K candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ....model.interop.jax_operations import Array, At, require_jax
from ..experiment import TOP_K, TOP_P
from ..naive_sampler import Candidates


def candidates_program(logits_BV: Array, at: At) -> tuple[Array, Array]:
    """Returns logits and ids [B, K] of what top_p, then top_k leave; fp32 logits go in."""
    jax = require_jax()
    jnp = jax.numpy
    x_BV = at("logits", logits_BV.astype("bfloat16"))
    shifted_BV = at("shifted", x_BV - x_BV.max(axis=1, keepdims=True))
    weights_BV = at("weights", jnp.exp(shifted_BV))
    total_B1 = at("total", weights_BV.sum(axis=1, keepdims=True))
    p_BV = at("probabilities", weights_BV / total_B1)
    sorted_BV = -jnp.sort(-p_BV, axis=1)
    mass_BV = at("mass", jnp.cumsum(sorted_BV, axis=1))
    kept_B1 = (mass_BV < TOP_P).sum(axis=1, keepdims=True)
    last_B1 = jnp.minimum(kept_B1, p_BV.shape[1] - 1)
    boundary_B1 = jnp.take_along_axis(sorted_BV, last_B1, axis=1)
    left_BV = jnp.where(p_BV < boundary_B1, -np.inf, x_BV.astype("float32"))
    values_BK, ids_BK = jax.lax.top_k(left_BV, TOP_K)
    return values_BK, ids_BK


def as_candidates(found: tuple[Any, Any]) -> Candidates:
    """Returns a program's result as the other samplers give theirs."""
    values_BK, ids_BK = (torch.from_numpy(np.array(each)) for each in found)
    return Candidates(ids_BK.long(), values_BK)
