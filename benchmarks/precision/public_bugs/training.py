"""Gates of experts, sums over ranks and steps of Adam."""

from __future__ import annotations

from typing import Any

import torch

from ....precision.contract import PrecisionContract
from ....precision.operations import validate_inputs
from .bug import Implementation, PublicBug, Tensor, normal

GATE, ADAM = PrecisionContract("moe_gate"), PrecisionContract("adam_step")
RANKS = PrecisionContract("rank_sum", storage="bf16")


def _gate(
    x: Tensor,
    k: int,
    score: str = "softmax",
    renormalize: bool = False,
    factor: float = 1.0,
) -> Tensor:
    chosen = validate_inputs("moe_gate", {"x": x, "k": k})["chosen"]
    scores = x.double().softmax(-1) if score == "softmax" else x.double().sigmoid()
    kept = scores * chosen
    return (kept / kept.sum(-1, keepdim=True) if renormalize else kept).mul(factor).float()


def _raw_logits(
    x: Tensor,
    k: int,
    score: str = "softmax",
    renormalize: bool = False,
    factor: float = 1.0,
) -> Tensor:
    if renormalize or score == "sigmoid":
        return _gate(x, k, score, renormalize, factor)
    return (x * validate_inputs("moe_gate", {"x": x, "k": k})["chosen"] * factor).float()


def _always_shares(
    x: Tensor,
    k: int,
    score: str = "softmax",
    renormalize: bool = False,
    factor: float = 1.0,
) -> Tensor:
    """The softmax taken of the chosen logits alone."""
    return _gate(x, k, score, True, factor)


def _rank_sum(x: Tensor, average: bool = False, ring: int | None = None) -> Tensor:
    total = x.double().sum(-1)
    return (total / x.shape[-1] if average else total).to(x.dtype)


def _bf16_hops(x: Tensor, average: bool = False, ring: int | None = None) -> Tensor:
    """Every rank adds its part to what comes in, and hands on bf16."""
    total = x[..., 0]
    for rank in range(1, x.shape[-1]):
        total = total + x[..., rank]
    return total / x.shape[-1] if average else total


def _adam(*, eps_early: bool = False, corrected: bool = True) -> Implementation:
    def step(
        parameter: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        step: int,
        **options: Any,
    ) -> Tensor:
        chosen = {"rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.0, **options}
        p, g, m, v = (x.double() for x in (parameter, gradient, first, second))
        b1, b2, rate, decay = (chosen[name] for name in ("beta1", "beta2", "rate", "decay"))
        decoupled = options.get("decoupled", True)
        g = g if decoupled else g + decay * p
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        if (result := options.get("result", "parameter")) != "parameter":
            return (m if result == "first" else v).float()
        rest1, rest2 = (1 - b1**step, 1 - b2**step) if corrected else (1.0, 1.0)
        eps = chosen["eps"] / rest2**0.5 if eps_early else chosen["eps"]
        kept = p * (1 - rate * decay) if decoupled else p
        return (kept - rate / rest1 * m / ((v / rest2).sqrt() + eps)).float()

    return step


def _early() -> dict[str, Any]:
    """The second step, of small gradients."""
    tensors = {
        name: normal(64, seed=i) for i, name in enumerate(("parameter", "gradient", "first"))
    }
    small = {"gradient": tensors["gradient"] * 1e-6, "first": tensors["first"] * 1e-6}
    return {**tensors, **small, "second": normal(64, seed=4).square() * 1e-14, "step": 2}


BUGS = (
    PublicBug(
        ("sgl-project/sglang#35160",),
        "router logits for weights where the top k are not renormalised",
        GATE, _raw_logits, _gate, lambda: {"x": normal(4, 16), "k": 4},
    ),
    PublicBug(
        ("NVIDIA/Megatron-LM#1593", "Lightning-AI/litgpt#1286"),
        "a softmax of the chosen logits alone where all are to count",
        GATE, _always_shares, _gate, lambda: {"x": normal(4, 16), "k": 4},
    ),
    PublicBug(
        ("NVIDIA/nccl#1026", "NVIDIA/Megatron-LM#6199", "tenstorrent/tt-metal#37884"),
        "a ring that hands on bf16 after every rank",
        RANKS, _bf16_hops, _rank_sum, lambda: {"x": normal(32, 16, dtype=torch.bfloat16)},
    ),
    PublicBug(
        ("tensorflow/tensorflow#35102", "karpathy/nanochat#304", "pytorch/pytorch#22628"),
        "Adam's eps beside a root that is not corrected yet",
        ADAM, _adam(eps_early=True), _adam(), _early,
    ),
    PublicBug(
        ("allenai/OLMo-core#317",),
        "Adam's moments taken for means in the first steps",
        ADAM, _adam(corrected=False), _adam(), _early,
    ),
)  # fmt: skip
