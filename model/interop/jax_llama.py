"""A checkpoint's Llama as a JAX user writes it: a pure function of parameters and tokens.

Roundings stand where transformers' eager Llama has them: norms and softmax compute in fp32, all
else in the weights' format. Whether a compiler keeps them is what this model is for.

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
    turn = cos_PD.astype(x_Pd.dtype), sin_PD.astype(x_Pd.dtype)
    for i in range(config.n_layers):
        block = _Block(parameters, i)
        x_Pd = x_Pd + _attention(config, block, _norm(config, x_Pd, block.weight("ln1")), *turn)
        x_Pd = x_Pd + _mlp(block, _norm(config, x_Pd, block.weight("ln2")))
    return _norm(config, x_Pd, parameters["ln_final.weight"])


class _Block:
    """The weights of one block."""

    def __init__(self, parameters: dict[str, Array], layer: int) -> None:
        self._parameters, self._prefix = parameters, f"blocks.{layer}."

    def weight(self, name: str) -> Array:
        return self._parameters[f"{self._prefix}{name}.weight"]

    def linear(self, name: str, x: Array) -> Array:
        y = x @ self.weight(name)
        bias = self._parameters.get(f"{self._prefix}{name}.bias")
        return y if bias is None else y + bias


def _norm(config: ModelConfig, x_Pd: Array, weight_d: Array) -> Array:
    wide = x_Pd.astype("float32")
    variance = (wide * wide).mean(-1, keepdims=True)
    scale = require_jax().lax.rsqrt(variance + np.float32(config.eps))
    return weight_d * (wide * scale).astype(x_Pd.dtype)


def _mlp(block: _Block, x_Pd: Array) -> Array:
    gate = require_jax().nn.silu(block.linear("mlp.gate", x_Pd))
    return block.linear("mlp.down", gate * block.linear("mlp.up", x_Pd))


def _attention(
    config: ModelConfig, block: _Block, x_Pd: Array, cos_PD: Array, sin_PD: Array
) -> Array:
    jax = require_jax()
    jnp = jax.numpy
    n, queries, keys = len(x_Pd), config.n_heads, config.n_key_value_heads
    q = block.linear("attn.q", x_Pd).reshape(n, queries, config.d_head)
    k = block.linear("attn.k", x_Pd).reshape(n, keys, config.d_head)
    v = block.linear("attn.v", x_Pd).reshape(n, keys, config.d_head)
    q, k = _rotated(q, cos_PD, sin_PD), _rotated(k, cos_PD, sin_PD)
    k, v = (jnp.repeat(each, queries // keys, axis=1) for each in (k, v))
    scores_HPP = jnp.einsum("qhd,khd->hqk", q, k) * jnp.asarray(config.attn_scale, x_Pd.dtype)
    sees_PP = jnp.tril(jnp.ones((n, n), dtype=bool))
    scores_HPP = jnp.where(sees_PP, scores_HPP, jnp.finfo(x_Pd.dtype).min)
    pattern_HPP = jax.nn.softmax(scores_HPP.astype("float32"), axis=-1).astype(x_Pd.dtype)
    z_PHD = jnp.einsum("hqk,khd->qhd", pattern_HPP, v)
    return block.linear("attn.o", z_PHD.reshape(n, queries * config.d_head))


def _rotated(x_PHD: Array, cos_PD: Array, sin_PD: Array) -> Array:
    half = x_PHD.shape[-1] // 2
    parts = [-x_PHD[..., half:], x_PHD[..., :half]]
    turned = require_jax().numpy.concatenate(parts, axis=-1)
    return x_PHD * cos_PD[:, None] + turned * sin_PD[:, None]
