"""Small inputs of any operation, and the operation on them."""

from __future__ import annotations

from typing import Any

import torch
from bitlens.precision import PrecisionContract, emulate


def inputs_of(op: str) -> dict[str, Any]:
    """Small inputs of any operation."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    rows = {"x": draw(5, 8), "weight": draw(8), "bias": draw(8)}
    return {
        "matmul": {"a": draw(5, 16), "b": draw(16, 7)},
        "rms_norm": {"x": rows["x"], "weight": rows["weight"], "eps": 1e-5},
        "layer_norm": rows,
        "group_norm": {"x": draw(5, 8, 3), "groups": 2, "weight": rows["weight"]},
        "conv1d": {"x": draw(5, 4, 9), "weight": draw(6, 4, 3)},
        "embedding": {"ids": torch.arange(5), "weight": draw(7, 8), "scale": 2.5},
        "softmax": {"x": rows["x"]},
        "log_softmax": {"x": rows["x"]},
        "logsumexp": {"x": rows["x"]},
        "cross_entropy": {"x": rows["x"], "targets": torch.arange(5), "reduction": "none"},
        "soft_cap": {"x": rows["x"], "cap": 2.0},
        "silu": {"x": rows["x"]},
        "gelu": {"x": rows["x"]},
        "sigmoid": {"x": rows["x"]},
        "tanh": {"x": rows["x"]},
        "add": {"a": draw(5, 8), "b": draw(5, 8)},
        "mul": {"a": draw(5, 8), "b": draw(5, 8)},
        "quantize": {"x": draw(5, 8), "scale": draw(5, 2).abs() + 0.5},
        "dequantize": {"codes": draw(5, 8), "scale": draw(5, 2), "minimum": draw(5, 2)},
        "block_scale": {"x": draw(5, 8), "block": 4},
        "moe_gate": {"x": rows["x"], "k": 3},
        "rank_sum": {"x": draw(5, 8)},
        "adam_step": {
            "parameter": draw(5, 8), "gradient": draw(5, 8), "first": draw(5, 8),
            "second": draw(5, 8).square(), "step": 3,
        },
        "clamped_swiglu": {"gate": draw(5, 8), "up": draw(5, 8)},
        "swiglu": {"gate": draw(5, 8), "up": draw(5, 8)},
        "gated_mlp": {"x": draw(5, 8), "gate": draw(8, 12), "up": draw(8, 12), "down": draw(12, 8)},
        "rope": {"x": draw(4, 5, 8), "positions": torch.arange(5), "theta": 1e4},
        "attention": {
            "q": draw(4, 3, 8), "k": draw(2, 6, 8), "v": draw(2, 6, 8), "causal": True, "past": 3,
            "scale": 0.25,
        },
        "fused_attention": {
            "q": draw(4, 3, 8), "k": draw(2, 6, 8), "v": draw(2, 6, 8), "causal": True, "past": 3,
        },
        "rotated_attention": {
            "q": draw(4, 3, 8), "k": draw(2, 6, 8), "v": draw(2, 6, 8), "causal": True, "past": 3,
            "window": 4,
        },
        "attention_block": {
            "x": draw(6, 4), "q": draw(4, 4), "k": draw(4, 2), "v": draw(4, 2), "o": draw(4, 3),
            "q_norm": draw(2), "k_norm": draw(2), "o_bias": draw(3), "d_head": 2, "causal": True,
            "past": 1,
        },
    }[op]  # fmt: skip


def run(op: str, inputs: dict[str, Any]) -> torch.Tensor:
    """The operation in fp32."""
    return emulate(inputs, PrecisionContract(op))
