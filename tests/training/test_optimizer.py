"""AdamW against torch's in fp64, clipping, and the rates of a schedule."""

from __future__ import annotations

import math

import pytest
import torch
from bitlens.model.training.optimizer import AdamW, AdamWSettings, gradient_norm, learning_rate
from support.training_models import small_model

U = 2.0**-24


def test_steps_are_torchs_to_their_roundings() -> None:
    """A parameter moves by a rate times a quotient of about 1, with some ten roundings a step."""
    model = small_model("qwen2")
    weights, steps, rate = model.trained, 5, 1e-3
    assert weights is not None
    settings = AdamWSettings(weight_decay=0.1, clip=math.inf)
    optimizer = AdamW(weights, settings)
    truth = {name: x.double().requires_grad_() for name, x in weights.values.items()}
    groups = [
        {"params": [x for x in truth.values() if (x.ndim > 1) is decays], "weight_decay": decay}
        for decays, decay in ((True, 0.1), (False, 0.0))
    ]
    torchs = torch.optim.AdamW(groups, lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        gradients = {n: torch.randn(x.shape, generator=generator) for n, x in truth.items()}
        for name, x in truth.items():
            x.grad = gradients[name].double()
        optimizer.step(gradients, rate)
        torchs.step()
    for name, x in weights.values.items():
        error = (x.double() - truth[name].detach()).abs()
        bound = steps * U * (2 * truth[name].detach().abs() + rate + 40 * rate)
        assert bool((error <= bound).all()), name
    assert optimizer.n_steps == steps


def test_large_gradients_are_scaled_to_the_clip() -> None:
    moved = []
    for factor, clip in ((1.0, math.inf), (100.0, 1.0)):
        weights = small_model().trained
        assert weights is not None
        gradients = {name: torch.ones_like(x) for name, x in weights.values.items()}
        norm = gradient_norm(gradients.values())
        scaled = {name: x * (factor / norm) for name, x in gradients.items()}
        found = AdamW(weights, AdamWSettings(clip=clip, eps=1.0)).step(scaled, 1e-2)
        assert found == pytest.approx(factor, rel=1e-5)
        moved.append(weights.values["blocks.0.mlp.up.weight"])
    assert torch.allclose(moved[0], moved[1], rtol=0, atol=4 * U)


def test_rates() -> None:
    def rates(schedule: str, warm_up: float = 0.2) -> list[float]:
        options = {"peak": 2.0, "schedule": schedule, "warm_up": warm_up}
        return [learning_rate(step, 10, **options) for step in range(1, 11)]

    assert rates("constant") == [1.0, *[2.0] * 9]
    assert rates("linear") == pytest.approx([1.0, 2.0, *[2 * (10 - i) / 8 for i in range(2, 10)]])
    cosine = [1 + math.cos(math.pi * (i - 2) / 8) for i in range(2, 10)]
    assert rates("cosine") == pytest.approx([1.0, 2.0, *cosine], abs=1e-6)
    assert rates("linear", 0.0)[0] == 2.0
