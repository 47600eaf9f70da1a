"""GGUF metadata -> ModelConfig.

Every key under the architecture's prefix must be one that is understood here: one that is not
could change the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..config import MAX_LAYERS, MAX_SIZE, LayerConfig, ModelConfig
from ..config_error import ConfigError
from ..rope.parameters import context_reached
from ..rope.scaling import RopeScaling
from ..weights.architectures import Architecture, by_gguf_name
from .gguf_rope import SCALING_KEYS, rope_scaling

# What Gemma 3 leaves out of its metadata (llama.cpp's loader holds the same numbers).
_GEMMA_LOCAL_THETA = 10_000.0
_GEMMA_PATTERN = 6
# And Gemma 2; 0 is none.
_GEMMA2_WINDOW = 4096
_GEMMA2_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
# How deep the 27B models are, which alone scale scores by d_model / n_heads.
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}

# From here on fp64 rounds to an fp32 infinity.
FP32_OVERFLOW = float.fromhex("0x1.ffffffp127")

_UNDERSTOOD = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "attention.scale",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "attention.causal",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.freq_base_swa",
        *SCALING_KEYS,
        "expert_count",
        "expert_used_count",
        "tensor_data_layout",
        "attn_logit_softcapping",
        "final_logit_softcapping",
    }
)

# Keys that ask for arithmetic bitlens does not have, and the values that ask for none.
_REFUSED: Mapping[str, tuple[object, ...]] = {
    "expert_count": (0,),
    "attention.causal": (True,),
    "tensor_data_layout": ("reference",),
}


def config_from_gguf(
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    rope_divisors: Mapping[str, tuple[float, ...]] | None = None,
) -> ModelConfig:
    """Reads the config from the metadata and, for biases and tying, from which tensors exist.

    Args:
        shapes: The file's tensors by their GGUF names.
        rope_divisors: Contents of those that divide the rotary frequencies.

    Raises:
        ConfigError: names the key, its value and what is supported.
    """
    arch = by_gguf_name(metadata.get("general.architecture"))
    prefix = f"{arch.gguf_name}."
    values = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    for key, value in values.items():
        if key not in _UNDERSTOOD:
            raise ConfigError(f"{prefix}{key} = {value!r}: bitlens does not know this setting")
        if isinstance(value, (list, np.ndarray)):
            raise ConfigError(f"{prefix}{key}: a value per layer is not supported")
        if key in _REFUSED and value not in _REFUSED[key]:
            raise ConfigError(f"{prefix}{key} = {value!r} is not supported")
    reader = _Values(prefix, values)
    d_model, n_heads = reader.integer("embedding_length"), reader.integer("attention.head_count")
    d_head = _d_head(reader, d_model, n_heads)
    gemma = arch.is_gemma
    layers = _layers(reader, arch, rope_scaling(prefix, values, rope_divisors or {}))
    return ModelConfig(
        architecture=arch.name,
        n_layers=reader.integer("block_count"),
        d_model=d_model,
        n_heads=n_heads,
        n_key_value_heads=reader.integer("attention.head_count_kv", n_heads),
        d_head=d_head,
        d_mlp=reader.integer("feed_forward_length"),
        d_vocab=_d_vocab(reader, shapes),
        n_ctx=context_reached(reader.integer("context_length"), layers, is_trained=False),
        eps=reader.number("attention.layer_norm_rms_epsilon"),
        attn_scale=reader.number("attention.scale", _attn_scale(reader, arch, d_head)),
        tie_embeddings="output.weight" not in shapes,
        layers=layers,
        act_fn="gelu_tanh" if gemma else "silu",
        attn_bias="blk.0.attn_q.bias" in shapes,
        attn_out_bias="blk.0.attn_output.bias" in shapes,
        mlp_bias="blk.0.ffn_gate.bias" in shapes,
        embed_scale=float(np.float32(math.sqrt(d_model))) if gemma else 1.0,
        attn_logit_softcap=_soft_cap(reader, arch, "attn_logit_softcapping"),
        final_logit_softcap=_soft_cap(reader, arch, "final_logit_softcapping"),
        folded_norm_offset=1.0 if gemma else 0.0,
        **{name: value for name, value in arch.fixed.items() if name != "attn_bias"},
    )


class _Values:
    """The architecture's metadata with typed access."""

    def __init__(self, prefix: str, values: Mapping[str, Any]) -> None:
        self._prefix = prefix
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def error(self, key: str, expected: str) -> ConfigError:
        return ConfigError(f"{self._prefix}{key} = {self._values.get(key)!r}: expected {expected}")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
            raise self.error(key, f"a positive integer, {MAX_SIZE} at most")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A float, by the shortest decimal that the stored fp32 stands for: 1e-5, not 9.99e-6."""
        value = self._values.get(key, default)
        if not isinstance(value, float) or not abs(value) < FP32_OVERFLOW:
            raise self.error(key, "a floating-point number of fp32's range")
        return value if key not in self._values else float(str(np.float32(value)))


def _d_head(reader: _Values, d_model: int, n_heads: int) -> int:
    if "attention.key_length" in reader:
        d_head = reader.integer("attention.key_length")
    elif d_model % n_heads:
        raise reader.error("attention.head_count", f"a divisor of embedding_length = {d_model}")
    else:
        d_head = d_model // n_heads
    if reader.integer("attention.value_length", d_head) != d_head:
        raise reader.error("attention.value_length", f"the key length, {d_head}")
    if reader.integer("rope.dimension_count", d_head) != d_head:
        raise reader.error("rope.dimension_count", f"{d_head}: only full rotary embeddings work")
    return d_head


def _attn_scale(reader: _Values, arch: Architecture, d_head: int) -> float:
    """Where the file does not say: Gemma's 27B models alone divide by d_model / n_heads."""
    if reader.integer("block_count") == _GEMMA_27B_LAYERS.get(arch.name):
        d_head = reader.integer("embedding_length") // reader.integer("attention.head_count")
    return float(d_head**-0.5)


def _soft_cap(reader: _Values, arch: Architecture, key: str) -> float | None:
    cap = reader.number(key, _GEMMA2_CAPS[key] if arch.name == "gemma2" else 0.0)
    if cap and not (arch.is_gemma and cap > 0):
        raise reader.error(key, "a positive number" if arch.is_gemma else f"none in {arch.name}")
    return cap or None


def _d_vocab(reader: _Values, shapes: Mapping[str, tuple[int, ...]]) -> int:
    shape = shapes.get("token_embd.weight")
    if shape is None or len(shape) != 2:
        raise ConfigError(f"token_embd.weight has shape {shape}: expected [vocabulary, d_model]")
    if reader.integer("vocab_size", shape[0]) != shape[0]:
        raise reader.error("vocab_size", f"{shape[0]}, the rows of token_embd.weight")
    return shape[0]


def _layers(
    reader: _Values, arch: Architecture, scaling: RopeScaling | None
) -> tuple[LayerConfig, ...]:
    n_layers = reader.integer("block_count")
    if n_layers > MAX_LAYERS:
        raise reader.error("block_count", f"at most {MAX_LAYERS}")
    windowed = "attention.sliding_window" in reader
    default = _GEMMA2_WINDOW if arch.window_rule == "alternating" else None
    window = reader.integer("attention.sliding_window") if windowed else default
    if windowed and arch.window_rule == "upper":
        raise reader.error("attention.sliding_window", f"none: which {arch.name} layers slide?")
    if arch.window_rule != "interleaved":
        theta = reader.number("rope.freq_base", 10_000.0)
        sliding = LayerConfig(window=window, rope_theta=theta, rope_scaling=scaling)
        if arch.window_rule != "alternating":
            return (sliding,) * n_layers
        if reader.integer("attention.sliding_window_pattern", 2) != 2:
            raise reader.error("attention.sliding_window_pattern", f"2: all that {arch.name} has")
        if reader.number("rope.freq_base_swa", theta) != theta:
            raise reader.error("rope.freq_base_swa", f"{theta}, as in the other layers")
        whole = LayerConfig(rope_theta=theta, rope_scaling=scaling)
        return tuple(whole if i % 2 else sliding for i in range(n_layers))
    every = reader.integer("attention.sliding_window_pattern", _GEMMA_PATTERN)
    theta = reader.number("rope.freq_base", 1_000_000.0)
    everywhere = LayerConfig(rope_theta=theta, rope_scaling=scaling)
    local_theta = reader.number("rope.freq_base_swa", _GEMMA_LOCAL_THETA)
    local = LayerConfig(window=window, rope_theta=local_theta)
    return tuple(everywhere if (i + 1) % every == 0 else local for i in range(n_layers))
