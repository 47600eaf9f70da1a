"""A checkpoint's Llama as a JAX user writes it: a pure function of parameters and tokens.

Roundings stand where transformers' eager Llama has them: norms, softmax and SiLU compute in fp32
(XLA rounds every step of a SiLU in bf16, which torch computes as one), all else in the weights'
format. Whether a compiler keeps them is what this model is for: every value that is rounded passes
through `at` under its address, where it can be looked at or rounded again. What its operations are
is in model/interop/jax_operations.py.

Tensor names: P positions, d residual, D head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..weights.checkpoint import Checkpoint
from .jax_operations import Array, At, as_it_is, operation, require_jax
from .plain_llama import dense, require_plain, rotation

Op = Callable[..., Any]
"""Computes the operation at an address from the values that it starts from."""


def jax_llama(checkpoint: Checkpoint, dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the compiled model, a function from tokens int64 [P] to logits fp32 [P, V].

    Args:
        dtype: "float32" or "bfloat16", of weights and activations.

    Raises ValueError for an architecture that is no plain Llama, RuntimeError without JAX.
    """
    parameters = jax_parameters(checkpoint, dtype)
    compiled = require_jax().jit(partial(llama_logits, checkpoint.config))

    def run(tokens_P: np.ndarray) -> np.ndarray:
        turn = rotation(checkpoint.config, len(tokens_P))
        logits_PV = compiled(parameters, tokens_P.astype(np.int32), *turn)
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


def forward(n_layers: int, op: Op, tokens_P: Any) -> Any:
    """Returns what the last of a pass's operations returns: all of them, one after the other."""
    x = residual_after_blocks(n_layers, op, tokens_P)
    return op("unembed", op("ln_final", x))


def residual_after_blocks(n_layers: int, op: Op, tokens_P: Any) -> Any:
    """Returns the residual stream that the final norm reads."""
    x = op("embed", tokens_P)
    for i in range(n_layers):
        x = block(lambda name, *values, i=i: op(f"blocks.{i}.{name}", *values), x)
    return x


def block(op: Op, x: Any) -> Any:
    """Returns the residual after a block, whose operations have addresses within it."""
    h = op("ln1", x)
    q, k, v = (op(f"attn.{name}", h) for name in "qkv")
    z = op("attn.attention", op("attn.rope_q", q), op("attn.rope_k", k), v)
    x = op("resid_mid", x, op("attn.o", z))
    h = op("ln2", x)
    act = op("mlp.act", op("mlp.gate", h), op("mlp.up", h))
    return op("resid_post", x, op("mlp.down", act))


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
    op = partial(operation, config, parameters, (cos_PD, sin_PD), as_it_is)
    return forward(config.n_layers, op, tokens_P)


def final_residual(
    config: ModelConfig,
    parameters: dict[str, Array],
    tokens_P: Array,
    cos_PD: Array,
    sin_PD: Array,
) -> Array:
    """Returns what is unembedded, [P, d]; arguments as `llama_logits`."""
    op = partial(operation, config, parameters, (cos_PD, sin_PD), as_it_is)
    return op("ln_final", residual_after_blocks(config.n_layers, op, tokens_P))


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
    return block(partial(operation, config, weights, (cos_PD, sin_PD), at), x_Pd)
