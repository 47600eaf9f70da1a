"""PPO against all answers of a policy that has seven of them, in fp64.

A table of logits: two tokens at most, the first of the three tokens ends an answer. So what PPO
estimates from samples is a finite sum, and its gradients can be compared with the truth.
Tensor names: Y answers, S states (nothing written, 1 written, 2 written), P positions.
"""

from __future__ import annotations

import pytest
import torch
from bitlens.model.training import advantages, losses

ANSWERS = [(0,), *((first, second) for first in (1, 2) for second in range(3))]
TOKENS = torch.tensor([(*answer, 0)[:2] for answer in ANSWERS])
SCORED = torch.tensor([[True, len(answer) == 2] for answer in ANSWERS])
STATES = torch.stack([torch.zeros(7, dtype=torch.int64), TOKENS[:, 0]], 1)
GENERATOR = torch.Generator().manual_seed(5)
BETA = 0.3


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


LOGITS, REFERENCE, MOVED, REWARDS = _draw(3, 3), _draw(3, 3), 0.4 * _draw(3, 3), _draw(7)


def _logprobs(logits: torch.Tensor) -> torch.Tensor:
    """Returns those of each answer's tokens, [Y, P]; 0 behind its end."""
    return torch.log_softmax(logits, -1)[STATES, TOKENS] * SCORED


def _objective(logits: torch.Tensor) -> torch.Tensor:
    """Returns the answers' mean worth, less the divergence."""
    logprobs = _logprobs(logits)
    divergence = (logprobs - _logprobs(REFERENCE)).sum(1)
    return (logprobs.sum(1).exp() * (REWARDS - BETA * divergence)).sum()


def _token_rewards() -> torch.Tensor:
    """Returns rewards as "ppo" pays them: the penalty at each token, the reward at the last."""
    found = -BETA * (_logprobs(LOGITS) - _logprobs(REFERENCE))
    found[torch.arange(7), SCORED.sum(1) - 1] += REWARDS
    return found


def _worth() -> torch.Tensor:
    """Returns each state's value: the mean of what follows it, by the definition."""
    p, later = _logprobs(LOGITS).exp(), _token_rewards()
    second = [(p[:, 1] * later[:, 1])[TOKENS[:, 0] == first].sum() for first in (1, 2)]
    whole = (p.prod(1) * later.sum(1)).sum()
    return torch.stack([whole, *second])


def _ppo(
    logits: torch.Tensor, critic: torch.Tensor, smoothing: float, old: torch.Tensor = LOGITS
) -> torch.Tensor:
    """The mean of PPO's loss, a sum over tokens, over all answers of the policy `old`."""
    values = critic[STATES] * SCORED
    fixed = values.detach()
    gains, returns = advantages.gae(_token_rewards(), fixed, SCORED, smoothing=smoothing)
    found = torch.zeros((), dtype=torch.float64)
    for y, p in enumerate(_logprobs(old).sum(1).exp()):
        row = slice(y, y + 1)
        loss = losses.ppo(
            _logprobs(logits)[row],
            _logprobs(old)[row],
            gains[row],
            SCORED[row],
            values_BP=values[row],
            old_values_BP=fixed[row],
            returns_BP=returns[row],
            value_weight=0.1,
            count=1,
        )
        found = found + p * loss
    return found


def _gradients(critic: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    logits, critic = LOGITS.clone().requires_grad_(), critic.clone().requires_grad_()
    _ppo(logits, critic, smoothing).backward()
    assert logits.grad is not None
    assert critic.grad is not None
    return logits.grad, critic.grad


def _true_gradient() -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    (-_objective(logits)).backward()
    assert logits.grad is not None
    assert logits.grad.abs().min() > 1e-3
    return logits.grad


def test_the_table_is_a_policy() -> None:
    assert _logprobs(LOGITS).sum(1).exp().sum().item() == pytest.approx(1.0, abs=1e-14)
    assert _worth()[0].item() == pytest.approx(_objective(LOGITS).item(), abs=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 1.0])
def test_the_mean_gradient_is_that_of_the_objective(smoothing: float) -> None:
    found, _ = _gradients(_worth(), smoothing)
    assert (found - _true_gradient()).abs().max() < 1e-14


def test_a_critic_that_errs_only_biases_where_it_is_trusted() -> None:
    """The control: with lambda 1 any baseline cancels, with less it does not."""
    wrong = _worth() + torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    truth = _true_gradient()
    assert (_gradients(wrong, 1.0)[0] - truth).abs().max() < 1e-14
    assert (_gradients(wrong, 0.0)[0] - truth).abs().max() > 1e-2


def test_the_critic_is_drawn_to_what_states_are_worth() -> None:
    reached = torch.stack([torch.ones(()), *torch.softmax(LOGITS[0], 0)[1:]])
    for away in (torch.zeros(3), torch.tensor([0.5, -1.0, 2.0])):
        _, found = _gradients(_worth() + away, 1.0)
        assert (found - 0.1 * reached * away).abs().max() < 1e-14


def test_a_policy_that_has_moved_is_held_by_the_clipped_surrogate() -> None:
    logits = (LOGITS + MOVED).requires_grad_()
    exact = (LOGITS + MOVED).requires_grad_()
    worth = _worth().tolist()
    _ppo(logits, _worth(), 0.0).backward()
    new, old, later = torch.log_softmax(exact, -1), torch.log_softmax(LOGITS, -1), _token_rewards()
    truth, n_clipped = torch.zeros((), dtype=torch.float64), 0
    for y, answer in enumerate(ANSWERS):
        p = _logprobs(LOGITS)[y].sum().exp()
        for t, token in enumerate(answer):
            state = answer[0] if t else 0
            follows = worth[token] if t == 0 and token else 0.0
            gain = later[y, t] + follows - worth[state]
            ratio = (new[state, token] - old[state, token]).exp()
            clipped = ratio.clamp(0.8, 1.2) * gain
            n_clipped += int(clipped < ratio * gain)
            truth = truth - p * torch.min(ratio * gain, clipped)
    truth.backward()
    assert logits.grad is not None
    assert exact.grad is not None
    assert n_clipped > 1
    assert (logits.grad - exact.grad).abs().max() < 1e-14
