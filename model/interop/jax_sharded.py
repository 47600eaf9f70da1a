"""The end of a Llama in JAX over several devices: the unembedding and the best tokens, sharded.

The compiler's partitioner (GSPMD) decides how shards are gathered and which tokens win. The blocks
run on one device.

Tensor names: P positions, d residual, V vocabulary, W vocabulary filled up to whole shards, K best
tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..weights.checkpoint import Checkpoint
from .jax_llama import final_residual, jax_parameters
from .jax_operations import require_jax, unembedding
from .plain_llama import rotation

DEVICES = 8
K = 50


def jax_sharded_llama(
    checkpoint: Checkpoint, devices: int = DEVICES
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns a function from tokens int64 [P] to logits fp32 [P, V] and the best ids [P, K].

    Raises ValueError for an architecture that is no plain Llama; RuntimeError without JAX, and for
    fewer devices.
    """
    jax = require_jax()
    if len(jax.devices()) < devices:
        raise RuntimeError(
            f"JAX has {len(jax.devices())} devices, this takes {devices}: before it starts, set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={devices}"
        )
    parameters = jax_parameters(checkpoint, "float32")
    config, n_vocab = checkpoint.config, checkpoint.config.d_vocab
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), ("vocabulary",))
    columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "vocabulary"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    weight_dV = np.asarray(unembedding(config, parameters))
    weight_dW = np.pad(weight_dV, ((0, 0), (0, -n_vocab % devices)))
    sharded_dW = jax.device_put(weight_dW, columns)
    blocks = jax.jit(partial(final_residual, config))
    end = jax.jit(partial(_logits_and_best, n_vocab), out_shardings=(columns, everywhere))

    def run(tokens_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turn = rotation(config, len(tokens_P))
        x_Pd = blocks(parameters, tokens_P.astype(np.int32), *turn)
        logits_PW, ids_PK = end(sharded_dW, jax.device_put(x_Pd, everywhere))
        return np.asarray(logits_PW)[:, :n_vocab], np.asarray(ids_PK).astype(np.int64)

    return run


def _logits_and_best(n_vocab: int, weight_dW: Any, x_Pd: Any) -> tuple[Any, Any]:
    """Returns logits and best ids; columns that fill the last shard up never win."""
    jax = require_jax()
    logits_PW = x_Pd @ weight_dW
    is_token_W = jax.numpy.arange(logits_PW.shape[1]) < n_vocab
    logits_PW = jax.numpy.where(is_token_W, logits_PW, -np.inf)
    _, ids_PK = jax.lax.top_k(logits_PW, min(K, n_vocab))
    return logits_PW, ids_PK
