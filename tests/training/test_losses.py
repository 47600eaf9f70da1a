"""Losses against the papers' formulas in torch's fp64 autograd, and their refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bitlens.model.training import advantages, losses
from bitlens.model.training.fixed_math import exp, softplus

B, P = 6, 9
GENERATOR = torch.Generator().manual_seed(11)


def _draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64) * scale


LOGPROBS, OLD, REFERENCE = -_draw(B, P).abs(), -_draw(B, P).abs(), -_draw(B, P).abs()
SCORED = torch.rand(B, P, generator=GENERATOR) < 0.6
SCORED[:, 3] = True
ADVANTAGES, PER_TOKEN = _draw(B), _draw(B, P)
LABELS, MARGIN = torch.rand(B, generator=GENERATOR, dtype=torch.float64), _draw(B).abs()
SUMS = [_draw(B, scale=8.0) for _ in range(4)]
LENGTHS = (torch.arange(1, B + 1), torch.arange(B, 0, -1))

Formula = Callable[..., torch.Tensor]


def _masked_mean(x: torch.Tensor, mean: str) -> torch.Tensor:
    if mean == "token":
        return x[SCORED].mean()
    return ((x * SCORED).sum(1) / SCORED.sum(1)).mean()


def _clip(x: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    ratio = x.exp()
    return -torch.min(ratio * advantages, ratio.clamp(0.8, 1.3) * advantages)


def _preference(gap: torch.Tensor, p: torch.Tensor | float) -> torch.Tensor:
    return -(p * F.logsigmoid(gap) + (1 - p) * F.logsigmoid(-gap))


def _margins(c: torch.Tensor, r: torch.Tensor, normal: bool = False) -> torch.Tensor:
    a, b = c - SUMS[2], r - SUMS[3]
    return a / LENGTHS[0] - b / LENGTHS[1] if normal else a - b


def _grpo_kl(x: torch.Tensor) -> torch.Tensor:
    gap = REFERENCE - x
    each = _clip(x - OLD, ADVANTAGES[:, None]) + 0.3 * (gap.exp() - gap - 1)
    return _masked_mean(each, "sequence")


def _ppo(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    ratio = (x - OLD).exp()
    policy = -torch.min(ratio * PER_TOKEN, ratio.clamp(0.8, 1.2) * PER_TOKEN)
    near = torch.max(torch.min(v, OLD + 0.2), OLD - 0.2)
    critic = torch.max((v - REFERENCE) ** 2, (near - REFERENCE) ** 2)
    return (policy + 0.05 * critic)[SCORED].mean()


EPSILON = {"epsilon": (0.2, 0.3)}
LOSSES: dict[str, tuple[list[torch.Tensor], Formula, Formula]] = {
    "sft": ([LOGPROBS], lambda x: losses.sft(x, SCORED), lambda x: -x[SCORED].mean()),
    "reward": (
        SUMS[:2],
        lambda c, r: losses.reward(c, r, labels_B=LABELS, margin_B=MARGIN, centering=0.01),
        lambda c, r: (_preference(c - r - MARGIN, LABELS) + 0.01 * (c + r) ** 2).mean(),
    ),
    "dpo": (
        SUMS[:2],
        lambda c, r: losses.dpo(c, r, *SUMS[2:], beta=0.3),
        lambda c, r: _preference(0.3 * _margins(c, r), 1.0).mean(),
    ),
    "dpo, soft labels, by length": (
        SUMS[:2],
        lambda c, r: losses.dpo(c, r, *SUMS[2:], beta=5, labels_B=LABELS, lengths_B=LENGTHS),
        lambda c, r: _preference(5 * _margins(c, r, True), LABELS).mean(),
    ),
    "ipo": (
        SUMS[:2],
        lambda c, r: losses.dpo(c, r, *SUMS[2:], beta=0.2, kind="ipo", lengths_B=LENGTHS),
        lambda c, r: ((_margins(c, r, True) - 2.5) ** 2).mean(),
    ),
    "grpo": (
        [LOGPROBS],
        lambda x: losses.grpo(x, OLD, ADVANTAGES, SCORED, mean="token", **EPSILON),
        lambda x: _masked_mean(_clip(x - OLD, ADVANTAGES[:, None]), "token"),
    ),
    "grpo, with a reference": (
        [LOGPROBS],
        lambda x: losses.grpo(
            x, OLD, ADVANTAGES, SCORED, beta=0.3, reference_BP=REFERENCE, **EPSILON
        ),
        _grpo_kl,
    ),
    "rloo": (
        [LOGPROBS],
        lambda x: losses.rloo(x, OLD, ADVANTAGES, SCORED, **EPSILON),
        lambda x: _clip(((x - OLD) * SCORED).sum(1), ADVANTAGES).mean(),
    ),
    "ppo": (
        [LOGPROBS, PER_TOKEN],
        lambda x, v: losses.ppo(
            x, OLD, PER_TOKEN, SCORED, values_BP=v, old_values_BP=OLD, returns_BP=REFERENCE
        ),
        _ppo,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_the_formula(name: str) -> None:
    inputs, ours, formula = LOSSES[name]
    for x in inputs:
        x.grad = None
    own, exact = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    found, truth = ours(*own), formula(*exact)
    found.backward()
    truth.backward()
    assert abs(found.item() - truth.item()) <= 1e-12 * max(1.0, abs(truth.item()))
    for x, y in zip(own, exact, strict=True):
        assert x.grad is not None
        assert y.grad is not None
        assert (x.grad - y.grad).abs().max() <= 1e-12 * y.grad.abs().max()
        assert y.grad.abs().max() > 0


def test_parts_of_a_batch_have_its_gradients_bit_for_bit() -> None:
    whole, parts = (LOGPROBS.float().requires_grad_() for _ in range(2))
    losses.sft(whole, SCORED).backward()
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        losses.sft(parts[rows], SCORED[rows], count=int(SCORED.sum())).backward()
    assert whole.grad is not None
    assert torch.equal(whole.grad, parts.grad)


def test_a_policy_that_has_not_moved_has_a_ratio_of_1() -> None:
    x = LOGPROBS.float()
    loss = losses.grpo(x, x, torch.ones(B), SCORED)
    assert loss.item() == pytest.approx(-1.0, abs=1e-15)


def test_nan_outside_the_scored_tokens_reaches_nothing() -> None:
    old = OLD.masked_fill(~SCORED, torch.nan)
    x = LOGPROBS.clone().requires_grad_()
    loss = losses.grpo(x, old, ADVANTAGES, SCORED) + losses.rloo(x, old, ADVANTAGES, SCORED)
    loss.backward()
    assert x.grad is not None
    assert bool(loss.isfinite())
    assert bool(x.grad.isfinite().all())


def test_exp_and_softplus_are_near_fp64s() -> None:
    x = np.concatenate([np.linspace(-690, 690, 4001), np.linspace(-2, 2, 4001)])
    assert np.abs(exp(x) / np.exp(x) - 1).max() < 1e-14
    assert np.abs(softplus(x) / np.logaddexp(0, x) - 1).max() < 1e-14
    assert np.isnan(softplus(np.array([np.nan]))).all()
    assert exp(np.array([-np.inf]))[0] < 1e-300


def test_advantages() -> None:
    rewards = _draw(12)
    groups = rewards.view(3, 4)
    found = advantages.group_advantages(rewards, 4).view(3, 4)
    scaled = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    assert torch.allclose(found, scaled, rtol=0, atol=1e-13)
    others = (groups.sum(1, keepdim=True) - groups) / 3
    assert torch.allclose(
        advantages.leave_one_out(rewards, 4).view(3, 4), groups - others, rtol=0, atol=1e-13
    )
    assert not advantages.group_advantages(torch.ones(8), 4).any()


def test_gae_is_the_sum_of_discounted_surprises() -> None:
    found, returns = advantages.gae(OLD, PER_TOKEN, SCORED, gamma=0.9, smoothing=0.8)
    for b in range(B):
        at = SCORED[b].nonzero().flatten().tolist()
        v = [*PER_TOKEN[b, at].tolist(), 0.0]
        surprises = [OLD[b, p].item() + 0.9 * v[i + 1] - v[i] for i, p in enumerate(at)]
        for i, p in enumerate(at):
            exact = sum(0.72**k * d for k, d in enumerate(surprises[i:]))
            assert found[b, p].item() == pytest.approx(exact, abs=1e-12)
            assert returns[b, p].item() == pytest.approx(exact + v[i], abs=1e-12)


def test_what_makes_no_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="no token is left"):
        losses.sft(LOGPROBS, torch.zeros(B, P, dtype=torch.bool))
    with pytest.raises(ValueError, match="scored: expected bool"):
        losses.sft(LOGPROBS, SCORED.long())
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        losses.dpo(*SUMS, labels_B=LABELS + 1)
    with pytest.raises(ValueError, match="rewards: nan for row 1"):
        advantages.group_advantages(torch.tensor([0.0, torch.nan]), 2)
    with pytest.raises(ValueError, match="no groups of 4"):
        advantages.group_advantages(torch.ones(6), 4)
    with pytest.raises(ValueError, match="another sample"):
        advantages.leave_one_out(torch.ones(6), 1)
