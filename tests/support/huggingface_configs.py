"""Small Hugging Face configs of every architecture and of every RoPE type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from support.huggingface_cases import SHAPE, heads, rope

ARCHITECTURES: Mapping[str, transformers.PretrainedConfig] = {
    "llama": transformers.LlamaConfig(**SHAPE, **heads(5, 5, 8), rope_parameters=rope(1e4)),
    "llama, biases, tied": transformers.LlamaConfig(
        **SHAPE | {"hidden_size": 42},  # transformers wants a multiple of the heads here
        **heads(3, 1, 10),
        rope_parameters=rope(5e5),
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
    ),
    "mistral, window": transformers.MistralConfig(
        **SHAPE, **heads(6, 3, 10), rope_parameters=rope(1e4), sliding_window=5
    ),
    "qwen2, window above": transformers.Qwen2Config(
        **SHAPE | {"hidden_size": 42},
        num_attention_heads=3,
        num_key_value_heads=3,
        rope_parameters=rope(1e6),
        use_sliding_window=True,
        sliding_window=7,
        max_window_layers=1,
    ),
    "qwen3, tied": transformers.Qwen3Config(
        **SHAPE, **heads(5, 1, 12), rope_parameters=rope(1e6), tie_word_embeddings=True
    ),
    "gemma2, alternating windows": transformers.Gemma2Config(
        **SHAPE | {"hidden_size": 42},
        **heads(3, 3, 10),
        query_pre_attn_scalar=12,
        sliding_window=4,
        rope_parameters=rope(1e4),
        attn_logit_softcapping=1.5,  # scores and logits are about 1: the caps bend both
        final_logit_softcapping=2.0,
    ),
    "gemma3, windows": transformers.Gemma3TextConfig(
        **SHAPE | {"hidden_size": 42},
        **heads(6, 2, 10),
        query_pre_attn_scalar=12,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "sliding_attention": rope(1e4),
            "full_attention": rope(1e6),
        },
    ),
    "gemma3, global layers scaled, logits capped": transformers.Gemma3TextConfig(
        **SHAPE,
        **heads(2, 1, 20),
        final_logit_softcapping=2.0,
        query_pre_attn_scalar=12,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "sliding_attention": rope(1e4),
            "full_attention": rope(1e6) | {"rope_type": "linear", "factor": 8.0},
        },
    ),
}
THETA, D_HEAD = 1e4, 20
SHORT = [1.0 + 0.1 * j for j in range(D_HEAD // 2)]
LONG = [1.0 + j * j for j in range(D_HEAD // 2)]

LLAMA = SHAPE | heads(2, 1, D_HEAD)


def llama(kind: str, n_ctx: int = 64, **parameters: Any) -> transformers.PretrainedConfig:
    rope_parameters = {"rope_type": kind, "rope_theta": THETA, **parameters}
    shape = LLAMA | {"max_position_embeddings": n_ctx}
    return transformers.LlamaConfig(**shape, rope_parameters=rope_parameters)


FIXED_ROPE: Mapping[str, transformers.PretrainedConfig] = {
    "linear": llama("linear", factor=4.0),
    "yarn": llama("yarn", factor=4.0, original_max_position_embeddings=32),
    "yarn, every field": llama(
        "yarn",
        factor=8.0,
        original_max_position_embeddings=8,
        beta_fast=4.0,
        beta_slow=0.5,
        mscale=0.7,
        mscale_all_dim=1.3,
        truncate=False,
    ),
    "yarn, factor from contexts": llama(
        "yarn", factor=None, original_max_position_embeddings=16, attention_factor=1.25
    ),
    "llama3": llama(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=32,
    ),
    "longrope, one list": llama(
        "longrope",
        factor=4.0,
        short_factor=LONG,
        long_factor=LONG,
        original_max_position_embeddings=16,
    ),
    "longrope, within the trained context": llama(
        "longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=64
    ),
}
ROPE_OF_LENGTH: Mapping[str, transformers.PretrainedConfig] = {
    "dynamic": llama("dynamic", n_ctx=8, factor=4.0),
    "longrope": llama(
        "longrope",
        factor=4.0,
        short_factor=SHORT,
        long_factor=LONG,
        original_max_position_embeddings=8,
    ),
}
