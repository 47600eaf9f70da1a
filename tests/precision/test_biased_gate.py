"""The gate of experts whose choice a bias corrects, against DeepSeek-V3's router."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.inputs import InputsError
from bitlens.precision.oracle import check
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

EXPERTS, CONTRACT = 32, PrecisionContract("moe_gate")


def routed(change: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
    """The weights that the router gives 64 tokens, and what it gives them for."""
    config = DeepseekV3Config(
        hidden_size=16, num_local_experts=EXPERTS, num_experts_per_tok=4, n_group=1, topk_group=1,
        routed_scaling_factor=2.5, norm_topk_prob=True,
    )  # fmt: skip
    g = torch.Generator().manual_seed(0)
    router = DeepseekV3TopkRouter(config).requires_grad_(False)
    router.weight.copy_(torch.randn(EXPERTS, 16, generator=g) / 4)
    bias = torch.randn(EXPERTS, generator=g) / 4
    if change != "no bias":
        router.e_score_correction_bias.copy_(bias)
    hidden = torch.randn(64, 16, generator=g)
    logits, weights, ids = router(hidden)
    if change == "weighed by the choice":
        biased = (logits.sigmoid() + bias).gather(-1, ids)
        weights = biased / biased.sum(-1, keepdim=True) * 2.5
    inputs = {
        "x": logits, "k": 4, "score": "sigmoid", "renormalize": True, "factor": 2.5, "bias": bias
    }  # fmt: skip
    return torch.zeros(64, EXPERTS).scatter(-1, ids, weights.float()), inputs


def test_deepseeks_router_keeps_its_contract() -> None:
    weights, inputs = routed()
    verdict = check(weights, inputs, CONTRACT)
    assert verdict.ok, verdict.reason
    assert verdict.unclaimed == 0
    unbiased = {name: value for name, value in inputs.items() if name != "bias"}
    assert not check(weights, unbiased, CONTRACT).ok


@pytest.mark.parametrize("change", ["no bias", "weighed by the choice"])
def test_a_bias_used_otherwise_breaks_it(change: str) -> None:
    assert not check(*routed(change), CONTRACT).ok


def test_nothing_is_said_where_rounding_may_choose() -> None:
    """Two experts whose biased scores are one step of fp32 apart, and two that are clearly so."""
    x = torch.tensor([[0.0, 0.5, -20.0], [2.0, 0.5, -20.0]])
    step = torch.tensor(0.5).sigmoid() - 0.5
    inputs = {"x": x, "k": 1, "score": "sigmoid", "bias": torch.stack([step, 0 * step, 0 * step])}
    weights = torch.tensor([[0.5, 0.0, 0.0], [torch.tensor(2.0).sigmoid(), 0.0, 0.0]])
    verdict = check(weights, inputs, CONTRACT)
    assert verdict.ok
    assert verdict.unclaimed == 3
    wrong = weights.roll(1, 1)
    assert check(wrong, inputs, CONTRACT).violations == 2


def test_a_bias_of_another_shape_is_refused() -> None:
    with pytest.raises(InputsError, match="bias"):
        check(torch.ones(2, 3), {"x": torch.ones(2, 3), "k": 1, "bias": torch.ones(2)}, CONTRACT)
