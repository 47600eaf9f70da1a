"""The operations of a Llama in JAX, each at its address.

Every value that is rounded passes through `at` under its address.

Tensor names: P positions, d residual, H heads, G key/value heads, D head, n outputs of a linear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..ops.sites import operation_at

Array = Any
"""JAX's; it is imported where it is needed."""

At = Callable[[str, Array], Array]
"""Takes an address and the value that is rounded there; returns what goes on."""


def as_it_is(address: str, value: Array) -> Array:
    """Returns the value."""
    return value


def require_jax() -> Any:
    """Returns jax. Raises RuntimeError naming the extra where it is not installed."""
    try:
        import jax
    except ModuleNotFoundError as error:
        raise RuntimeError("this needs JAX: pip install 'bitlens[platforms]'") from error
    return jax


def operation(
    config: ModelConfig,
    weights: dict[str, Array],
    turn: tuple[Array, Array],
    at: At,
    address: str,
    *inputs: Array,
) -> Array:
    """Returns the result of the operation at an address.

    Args:
        weights: By their names where the address is one: of the model, or within a block.
        turn: cos and sin, fp32 [P, D].
        inputs: What it starts from. Heads are [H, P, D] after RoPE, and last in [P, n] before it
            and after attention.
    """
    kind = operation_at(address)
    if kind == "embedding":
        return at(address, weights["embed.weight"][inputs[0]])
    if kind == "rope":
        return _rotated(config, inputs[0], *turn, address, at)
    if kind == "attention":
        q_HPD, k_GPD, v_Pn = inputs
        return _attention(config, q_HPD, k_GPD, v_Pn, address, at)
    if kind == "linear":
        return _linear(config, weights, inputs[0], address, at)
    if kind == "rms_norm":
        return _norm(config, inputs[0], weights[f"{address}.weight"], address, at)
    x_Pn, y_Pn = inputs
    return _gated(x_Pn, y_Pn, address, at) if kind == "swiglu" else at(address, x_Pn + y_Pn)


def unembedding(config: ModelConfig, parameters: dict[str, Array]) -> Array:
    """Returns it, [d, V]."""
    tied = config.tie_embeddings
    return parameters["embed.weight"].T if tied else parameters["unembed.weight"]


def _linear(
    config: ModelConfig, weights: dict[str, Array], x: Array, address: str, at: At
) -> Array:
    if address == "unembed":
        return at(address, x @ unembedding(config, weights))
    y = at(address, x @ weights[f"{address}.weight"])
    bias = weights.get(f"{address}.bias")
    return y if bias is None else at(f"{address}.biased", y + bias)


def _norm(config: ModelConfig, x_Pd: Array, weight_d: Array, name: str, at: At) -> Array:
    wide = x_Pd.astype("float32")
    variance = (wide * wide).mean(-1, keepdims=True)
    scale = require_jax().lax.rsqrt(variance + np.float32(config.eps))
    normalized = at(f"{name}.normalized", (wide * scale).astype(x_Pd.dtype))
    return at(name, weight_d * normalized)


def _gated(gate: Array, up: Array, name: str, at: At) -> Array:
    wide = require_jax().nn.silu(gate.astype("float32"))
    silu = at(f"{name}.silu", wide.astype(gate.dtype))
    return at(name, silu * up)


def _heads(config: ModelConfig, x_Pn: Array) -> Array:
    """[H, P, D]."""
    return x_Pn.reshape(len(x_Pn), -1, config.d_head).swapaxes(0, 1)


def _rotated(
    config: ModelConfig, x_Pn: Array, cos_PD: Array, sin_PD: Array, name: str, at: At
) -> Array:
    x_HPD = _heads(config, x_Pn)
    half = config.d_head // 2
    parts = [-x_HPD[..., half:], x_HPD[..., :half]]
    turned = require_jax().numpy.concatenate(parts, axis=-1)
    along = at(f"{name}.along", x_HPD * cos_PD.astype(x_Pn.dtype))
    across = at(f"{name}.across", turned * sin_PD.astype(x_Pn.dtype))
    return at(name, along + across)


def _attention(
    config: ModelConfig, q_HPD: Array, k_GPD: Array, v_Pn: Array, name: str, at: At
) -> Array:
    jax = require_jax()
    jnp = jax.numpy
    heads, n, _ = q_HPD.shape
    q_GRPD = q_HPD.reshape(len(k_GPD), -1, n, config.d_head)
    products_GRPP = jnp.einsum("grqd,gkd->grqk", q_GRPD, k_GPD)
    products_HPP = at(f"{name}.products", products_GRPP.reshape(heads, n, n))
    scale = jnp.asarray(config.attn_scale, q_HPD.dtype)
    scores_HPP = at(f"{name}.scores", products_HPP * scale)
    sees_PP = jnp.tril(jnp.ones((n, n), dtype=bool))
    scores_HPP = jnp.where(sees_PP, scores_HPP, jnp.finfo(q_HPD.dtype).min)
    wide_HPP = jax.nn.softmax(scores_HPP.astype("float32"), axis=-1)
    pattern_HPP = at(f"{name}.pattern", wide_HPP.astype(q_HPD.dtype))
    pattern_GRPP = pattern_HPP.reshape(len(k_GPD), -1, n, n)
    z_PGRD = jnp.einsum("grqk,gkd->qgrd", pattern_GRPP, _heads(config, v_Pn))
    return at(name, z_PGRD.reshape(n, -1))
