"""A checkpoint's Llama as a JAX user writes it: a pure function of parameters and tokens.

Roundings stand where transformers' eager Llama has them: norms, softmax and SiLU compute in fp32
(XLA rounds every step of a SiLU in bf16, which torch computes as one), all else in the weights'
format. Whether a compiler keeps them is what this model is for: every value that is rounded passes
through `at` under its address, where it can be looked at or rounded again.

Tensor names: P positions, d residual, H heads, D head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..weights.checkpoint import Checkpoint
from .plain_llama import dense, require_plain, rotation

Array = Any
"""JAX's; it is imported where it is needed."""

At = Callable[[str, Array], Array]
"""Takes an address within a block and the value that is rounded there; returns what goes on."""


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


def jax_llama(checkpoint: Checkpoint, dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the compiled model, a function from tokens int64 [P] to logits fp32 [P, V].

    Args:
        dtype: "float32" or "bfloat16", of weights and activations.

    Raises ValueError for an architecture that is no plain Llama, RuntimeError without JAX.
    """
    parameters = jax_parameters(checkpoint, dtype)
    compiled = require_jax().jit(partial(llama_logits, checkpoint.config))

    def run(tokens_P: np.ndarray) -> np.ndarray:
        cos_PD, sin_PD = rotation(checkpoint.config, len(tokens_P))
        logits_PV = compiled(parameters, tokens_P.astype(np.int32), cos_PD, sin_PD)
        return np.asarray(logits_PV.astype("float32"))

    return run


def jax_parameters(checkpoint: Checkpoint, dtype: str) -> dict[str, Array]:
    """Returns the weights by bitlens' names; raises as `jax_llama`."""
    jax = require_jax()
    require_plain(checkpoint)
    return {
        name: jax.numpy.asarray(dense(checkpoint, name)).astype(dtype)
        for name in checkpoint.names()
    }


def llama_logits(
    config: ModelConfig,
    parameters: dict[str, Array],
    tokens_P: Array,
    cos_PD: Array,
    sin_PD: Array,
) -> Array:
    """Returns logits [P, V] in the parameters' format.

    Args:
        parameters: By bitlens' names; matrices [in, out], `embed.weight` [V, d].
        cos_PD, sin_PD: fp32.
    """
    x_Pd = final_residual(config, parameters, tokens_P, cos_PD, sin_PD)
    return x_Pd @ unembedding(config, parameters)


def unembedding(config: ModelConfig, parameters: dict[str, Array]) -> Array:
    """Returns it, [d, V]."""
    tied = config.tie_embeddings
    return parameters["embed.weight"].T if tied else parameters["unembed.weight"]


def final_residual(
    config: ModelConfig,
    parameters: dict[str, Array],
    tokens_P: Array,
    cos_PD: Array,
    sin_PD: Array,
) -> Array:
    """Returns what is unembedded, [P, d]; arguments as `llama_logits`."""
    x_Pd = parameters["embed.weight"][tokens_P]
    for i in range(config.n_layers):
        x_Pd = block_output(config, block_weights(parameters, i), x_Pd, cos_PD, sin_PD)
    return _norm(config, x_Pd, parameters["ln_final.weight"], "ln_final", as_it_is)


def block_weights(parameters: dict[str, Array], layer: int) -> dict[str, Array]:
    """Returns the weights of a block by their names within it, such as `attn.q.weight`."""
    prefix = f"blocks.{layer}."
    return {
        name.removeprefix(prefix): value
        for name, value in parameters.items()
        if name.startswith(prefix)
    }


def block_output(
    config: ModelConfig,
    weights: dict[str, Array],
    x_Pd: Array,
    cos_PD: Array,
    sin_PD: Array,
    at: At = as_it_is,
) -> Array:
    """Returns the residual after a block, [P, d]; `weights` as `block_weights` gives them."""
    turn = cos_PD.astype(x_Pd.dtype), sin_PD.astype(x_Pd.dtype)
    h_Pd = _norm(config, x_Pd, weights["ln1.weight"], "ln1", at)
    x_Pd = at("resid_mid", x_Pd + _attention(config, weights, h_Pd, *turn, at))
    h_Pd = _norm(config, x_Pd, weights["ln2.weight"], "ln2", at)
    return at("resid_post", x_Pd + _mlp(weights, h_Pd, at))


def _linear(weights: dict[str, Array], name: str, x: Array, at: At) -> Array:
    y = at(name, x @ weights[f"{name}.weight"])
    bias = weights.get(f"{name}.bias")
    return y if bias is None else at(f"{name}.biased", y + bias)


def _norm(config: ModelConfig, x_Pd: Array, weight_d: Array, name: str, at: At) -> Array:
    wide = x_Pd.astype("float32")
    variance = (wide * wide).mean(-1, keepdims=True)
    scale = require_jax().lax.rsqrt(variance + np.float32(config.eps))
    normalized = at(f"{name}.normalized", (wide * scale).astype(x_Pd.dtype))
    return at(name, weight_d * normalized)


def _mlp(weights: dict[str, Array], x_Pd: Array, at: At) -> Array:
    gate = _linear(weights, "mlp.gate", x_Pd, at)
    wide = require_jax().nn.silu(gate.astype("float32"))
    silu = at("mlp.act.silu", wide.astype(gate.dtype))
    act = at("mlp.act", silu * _linear(weights, "mlp.up", x_Pd, at))
    return _linear(weights, "mlp.down", act, at)


def _attention(
    config: ModelConfig,
    weights: dict[str, Array],
    x_Pd: Array,
    cos_PD: Array,
    sin_PD: Array,
    at: At,
) -> Array:
    jax = require_jax()
    jnp = jax.numpy
    n, queries, keys = len(x_Pd), config.n_heads, config.n_key_value_heads
    q = _linear(weights, "attn.q", x_Pd, at).reshape(n, queries, config.d_head)
    k = _linear(weights, "attn.k", x_Pd, at).reshape(n, keys, config.d_head)
    v = _linear(weights, "attn.v", x_Pd, at).reshape(n, keys, config.d_head)
    q = _rotated(q, cos_PD, sin_PD, "attn.rope_q", at)
    k = _rotated(k, cos_PD, sin_PD, "attn.rope_k", at)
    k, v = (jnp.repeat(each, queries // keys, axis=1) for each in (k, v))
    products_HPP = at("attn.attention.products", jnp.einsum("qhd,khd->hqk", q, k))
    scale = jnp.asarray(config.attn_scale, x_Pd.dtype)
    scores_HPP = at("attn.attention.scores", products_HPP * scale)
    sees_PP = jnp.tril(jnp.ones((n, n), dtype=bool))
    scores_HPP = jnp.where(sees_PP, scores_HPP, jnp.finfo(x_Pd.dtype).min)
    wide_HPP = jax.nn.softmax(scores_HPP.astype("float32"), axis=-1)
    pattern_HPP = at("attn.attention.pattern", wide_HPP.astype(x_Pd.dtype))
    z_PHD = at("attn.attention", jnp.einsum("hqk,khd->qhd", pattern_HPP, v))
    return _linear(weights, "attn.o", z_PHD.reshape(n, queries * config.d_head), at)


def _rotated(x_PHD: Array, cos_PD: Array, sin_PD: Array, name: str, at: At) -> Array:
    half = x_PHD.shape[-1] // 2
    parts = [-x_PHD[..., half:], x_PHD[..., :half]]
    turned = require_jax().numpy.concatenate(parts, axis=-1)
    along = at(f"{name}.along", x_PHD * cos_PD[:, None])
    across = at(f"{name}.across", turned * sin_PD[:, None])
    return at(name, along + across)
