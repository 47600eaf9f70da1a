"""Attention as implementations have got it wrong, each a correct program but for one thing."""

from __future__ import annotations

import math
from typing import Any

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program
from .visible import visible_keys


def without_scale(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """1 / sqrt(d), whatever `scale` says."""
    return program.attention(ar, {**inputs, "scale": 1 / math.sqrt(inputs["q"].shape[-1])})


def without_cap(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    return program.attention(ar, {**inputs, "cap": None})


def without_past(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The queries stand at the end of the keys, whatever `past` says."""
    n_queries, n_keys = inputs["q"].shape[-2], inputs["k"].shape[-2]
    options = {name: inputs[name] for name in ("causal", "window")}
    visible = visible_keys(n_queries, n_keys, past=n_keys - n_queries, **options)
    return program.attention(ar, {**inputs, "visible": visible, "empty": None})


def capped_after_mask(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """A hidden key keeps the score -cap (onnx#7865)."""
    cap = inputs["cap"]
    return program.attention(ar, inputs, hidden=-math.inf if cap is None else -cap)


def scaled_bias(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """(q k + bias) times the scale (tenstorrent/tt-metal#56406)."""
    bias = inputs["bias"]
    return program.attention(
        ar, {**inputs, "bias": None if bias is None else bias.double() * inputs["scale"]}
    )


def sinks_twice(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """Once for each of two splits of the keys (ROCm/rocm-libraries#12229)."""
    sinks = inputs["sinks"]
    return program.attention(
        ar, {**inputs, "sinks": None if sinks is None else sinks.double() + math.log(2)}
    )


def reversed_slopes(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """q_idx - kv_idx for kv_idx - q_idx (meta-pytorch/attention-gym#86)."""
    return program.attention(ar, {**inputs, "behind": -inputs["behind"]})


def bare(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The mean of all values for 0, and 0 for the mean (pytorch#103963)."""
    other = {"zero": "mean", "mean": "zero"}
    return program.attention(ar, {**inputs, "empty": other.get(inputs["empty"])})
