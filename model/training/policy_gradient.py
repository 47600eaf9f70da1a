"""Reinforcement learning from a reward of whole answers: GRPO and RLOO.

Tensor names: R rows, prompt-major, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..transformer import HookedTransformer
from . import advantages, losses
from .answers import Answers, RewardFunction, check_same_policy, summary, token_divergence
from .config import TrainConfig
from .examples import ExampleReader, Question, Row
from .fixed_math import total
from .method import Metrics
from .padded import Policy
from .rollout import Rollouts


class PolicyGradient:
    """Methods "grpo" and "rloo": one update on what the policy of the moment has sampled."""

    def __init__(
        self,
        model: HookedTransformer,
        reference: Policy | None,
        config: TrainConfig,
        reward: RewardFunction,
    ) -> None:
        self._model = model
        self._reference = reference
        self._config = config
        self._answers = Answers(model, config, reward)

    def examples(self, row: Row, reader: ExampleReader) -> Sequence[Question]:
        return [reader.question(row)]

    def backward(self, batch: Sequence[Question], step: int) -> tuple[Metrics, bool]:
        config, n = self._config, self._config.samples
        answers, rewards = self._answers.sample(batch, step)
        spread = sum(bool((group != group[0]).any()) for group in rewards.view(-1, n))
        metrics = {**summary(answers, rewards), "groups_with_spread": spread / len(batch)}
        if not spread and not config.kl_weight:
            return {"loss": 0.0, "kl": 0.0, "logprob_gap": 0.0, **metrics}, False
        return {**self._learn(answers, rewards), **metrics}, True

    def held_out(self, examples: Sequence[Question]) -> Mapping[str, float]:
        return self._answers.held_out(examples)

    def _learn(self, answers: Rollouts, rewards: torch.Tensor) -> Metrics:
        """Adds the gradients; returns the loss and what says whether policies agree."""
        config, n, sampled = self._config, self._config.samples, answers.sampled
        if config.method == "grpo":
            gains = advantages.group_advantages(rewards, n)
        else:
            gains = advantages.leave_one_out(rewards, n)
        found: list[float] = []
        distance: list[float] = []
        gap = 0.0
        for first in range(0, len(rewards), config.microbatch * n):
            rows = slice(first, first + config.microbatch * n)
            batch = answers.tokens[rows], answers.attention_mask[rows]
            settings: dict[str, Any] = {
                "scored": sampled[rows],
                "temperature": config.temperature,
            }
            logprobs = self._model.logprobs(*batch, **settings)
            old = answers.logprobs[rows]
            gap = max(gap, float((logprobs.detach() - old).abs()[sampled[rows]].max()))
            reference = None
            if self._reference is not None:
                with torch.no_grad():
                    reference = self._reference.logprobs(*batch, **settings)
                distance += token_divergence(reference, logprobs, sampled[rows])
            loss = self._loss(logprobs, old, gains[rows], sampled[rows], reference, len(rewards))
            loss.backward()  # type: ignore[no-untyped-call]
            found.append(float(loss.detach()))
        check_same_policy(gap)
        kl = total(distance) / len(distance) if distance else 0.0
        return {"loss": total(found), "kl": kl, "logprob_gap": gap}

    def _loss(
        self,
        logprobs: torch.Tensor,
        old: torch.Tensor,
        gains: torch.Tensor,
        sampled: torch.Tensor,
        reference: torch.Tensor | None,
        count: int,
    ) -> torch.Tensor:
        epsilon = (self._config.epsilon, self._config.epsilon)
        if self._config.method == "rloo":
            return losses.rloo(logprobs, old, gains, sampled, epsilon=epsilon, count=count)
        return losses.grpo(
            logprobs,
            old,
            gains,
            sampled,
            epsilon=epsilon,
            beta=self._config.kl_weight,
            reference_BP=reference,
            count=count,
        )
