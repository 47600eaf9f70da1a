"""RoPE scaling of a GGUF file: its metadata keys and its tensors of divisors -> RopeScaling.

llama.cpp's loader is the reference: without a type, a factor means "linear"; yarn's attention
factor and ramp are Hugging Face's defaults; rope_freqs.weight divides the frequencies (the
converter writes Llama 3.1's scaling so, rounded to fp32).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..config_error import ConfigError
from ..rope.parameters import scaling_from_huggingface
from ..rope.scaling import RopeScaling

SCALING_KEYS = (
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scale_linear",
)
ROPE_FREQS = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
DIVISORS = (ROPE_FREQS, LONG, SHORT)
"""Tensors that are not weights of the model but divisors of its rotary frequencies."""


def rope_scaling(
    prefix: str, values: Mapping[str, Any], divisors: Mapping[str, tuple[float, ...]]
) -> RopeScaling | None:
    """Returns the scaling that the file asks for.

    Args:
        prefix: The architecture's, for messages.
        values: Metadata under this prefix.
        divisors: Contents of the tensors in DIVISORS that the file has.

    Raises:
        ConfigError: names the key or tensor and what is supported.
    """
    kind, factor = values.get("rope.scaling.type"), _factor(prefix, values)
    if kind is None:
        kind = "none" if factor is None else "linear"
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise ConfigError(
            f"{prefix}rope.scaling.type = {kind!r}: supported are none, linear, yarn, longrope"
        )
    expected = {LONG, SHORT} if kind == "longrope" else {ROPE_FREQS} & divisors.keys()
    for name in sorted(expected ^ divisors.keys()):
        raise ConfigError(f"{name}: {'needed' if name in expected else 'not used'} by {kind} RoPE")
    if ROPE_FREQS in divisors:
        if kind != "none" and factor is not None:
            raise ConfigError(f"{ROPE_FREQS}: not supported beside {kind} RoPE scaling")
        same = list(divisors[ROPE_FREQS])
        fields = {"short_factor": same, "long_factor": same, "attention_factor": 1.0}
        return _scaling(prefix, values, {"rope_type": "longrope", **fields})
    if kind == "longrope":
        fields = {"short_factor": list(divisors[SHORT]), "long_factor": list(divisors[LONG])}
        attention_factor = _number(prefix, values, "rope.scaling.attn_factor", 1.0)
        if factor is not None:
            raise ConfigError(f"{prefix}rope.scaling.factor: not supported beside longrope")
        return _scaling(
            prefix,
            values,
            {"rope_type": kind, "attention_factor": attention_factor, **fields},
        )
    if values.get("rope.scaling.attn_factor", 1.0) != 1.0:
        raise ConfigError(f"{prefix}rope.scaling.attn_factor: only longrope has one")
    if kind == "none" or factor is None:
        return None
    return _scaling(prefix, values, {"rope_type": kind, "factor": factor})


def _scaling(
    prefix: str, values: Mapping[str, Any], fields: Mapping[str, Any]
) -> RopeScaling | None:
    n_ctx = values.get("context_length")
    if isinstance(n_ctx, bool) or not isinstance(n_ctx, int):
        raise ConfigError(f"{prefix}context_length = {n_ctx!r}: expected a positive integer")
    trained = values.get("rope.scaling.original_context_length")
    where = f"{prefix}rope.scaling"
    return scaling_from_huggingface(
        {**fields, "original_max_position_embeddings": trained}, where, n_ctx
    )


def _factor(prefix: str, values: Mapping[str, Any]) -> float | None:
    """None where there is none to apply: left out, 0 or 1."""
    key = "rope.scaling.factor" if "rope.scaling.factor" in values else "rope.scale_linear"
    factor = _number(prefix, values, key, 1.0)
    return None if factor in (0.0, 1.0) else factor


def _number(prefix: str, values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    if not isinstance(value, float) or not abs(value) < 3.4e38:
        raise ConfigError(f"{prefix}{key} = {value!r}: expected a floating-point number")
    # The shortest decimal that the stored fp32 stands for.
    return float(str(np.float32(value)))
