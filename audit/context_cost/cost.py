"""Costs of a context by its length: floating-point operations, KV cache, and measured time.

Counted are the multiplications and additions of matrix products: 2 for every weight of a linear
and every token, and in attention 4 d_head for every head and visible key (q . k, and pattern times
v). Norms, RoPE, softmax and activations are left out; they grow like the linears or are a few
operations a score.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...model.config import ModelConfig
from ...model.weights.architectures import tensor_shapes

if TYPE_CHECKING:
    from ...model.transformer import HookedTransformer


@dataclass(frozen=True)
class ContextCost:
    """One prompt of `n_tokens`, prefilled, with the logits of its last token.

    Attributes:
        attention_flops: Scores and weighted values of the whole prompt, keys beyond a sliding
            window or in the future left out.
        linear_flops: Every projection of the whole prompt, and the last token's logits.
        next_token_flops: Decoding one token more: its linears, logits and attention.
        kv_bytes: Keys and values of all layers. Sliding layers keep every token, too.
    """

    n_tokens: int
    attention_flops: int
    linear_flops: int
    next_token_flops: int
    kv_bytes: int

    @property
    def model_flops(self) -> int:
        return self.attention_flops + self.linear_flops

    @property
    def attention_share(self) -> float:
        return self.attention_flops / self.model_flops


def context_cost(config: ModelConfig, n_tokens: int, kv_itemsize: int = 4) -> ContextCost:
    """Costs of a prompt of `n_tokens`, whatever the model's own context.

    Args:
        kv_itemsize: Bytes of a cached number: 4 under the policy fp32, 2 under bf16.

    Raises:
        ValueError: n_tokens below 1.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens = {n_tokens}: a prompt has at least 1 token")
    per_key = 4 * config.n_heads * config.d_head
    visible = sum(_visible_keys(n_tokens, layer.window) for layer in config.layers)
    following = sum(min(n_tokens + 1, layer.window or n_tokens + 1) for layer in config.layers)
    per_token = 2 * _block_weights(config)
    logits = 2 * config.d_vocab * config.d_model
    per_position = 2 * config.n_key_value_heads * config.d_head * kv_itemsize
    return ContextCost(
        n_tokens=n_tokens,
        attention_flops=per_key * visible,
        linear_flops=per_token * n_tokens + logits,
        next_token_flops=per_token + logits + per_key * following,
        kv_bytes=config.n_layers * n_tokens * per_position,
    )


def _visible_keys(n_tokens: int, window: int | None) -> int:
    """Pairs of a query and a key that it sees, of one head in one layer."""
    full = min(n_tokens, window or n_tokens)
    return full * (full + 1) // 2 + (n_tokens - full) * full


def _block_weights(config: ModelConfig) -> int:
    shapes = tensor_shapes(config).items()
    return sum(
        shape[0] * shape[1]
        for name, shape in shapes
        if name.startswith("blocks.") and len(shape) == 2
    )


@torch.no_grad()
def measure_prefill(
    model: HookedTransformer,
    lengths: Sequence[int],
    rounds: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, float]:
    """Median seconds to prefill random tokens, every length in every round; lengths beyond the
    model's context are left out.

    One unmeasured round comes first. `progress` is called with (runs done, runs in all).
    """
    within = [n for n in lengths if n <= model.config.n_ctx]
    seconds: dict[int, list[float]] = {n: [] for n in within}
    done, total = 0, len(within) * (rounds + 1)
    for round_ in range(rounds + 1):
        for n in within:
            taken = _seconds(model, n)
            if round_:
                seconds[n].append(taken)
            done += 1
            if progress is not None:
                progress(done, total)
    return {n: statistics.median(times) for n, times in seconds.items()}


def _seconds(model: HookedTransformer, n_tokens: int) -> float:
    generator = torch.Generator().manual_seed(0)
    tokens_P = torch.randint(model.config.d_vocab, (n_tokens,), generator=generator)
    cache = model.new_cache()
    started = time.perf_counter()
    model.forward_last(tokens_P[None], kv_cache=cache)
    return time.perf_counter() - started
