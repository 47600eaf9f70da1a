"""Reinforcement learning from a reward of whole answers: GRPO and RLOO.

Tensor names: R rows, prompt-major, P positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..transformer import HookedTransformer
from . import advantages, losses
from .config import TrainConfig
from .examples import ExampleReader, Question, Row
from .fixed_math import exp, total
from .loss_node import array
from .method import Metrics
from .padded import Policy
from .rollout import Rollouts, rollout

RewardFunction = Callable[..., Sequence[float]]
"""Called as TRL calls one: `reward(prompts=[...], completions=[...], **columns)`, where columns are
the other fields of the data's rows, each a list; returns a number for each completion."""


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
        self._reward = reward

    def examples(self, row: Row, reader: ExampleReader) -> Sequence[Question]:
        return [reader.question(row)]

    def backward(self, batch: Sequence[Question], step: int) -> tuple[Metrics, bool]:
        config, n = self._config, self._config.samples
        answers = self._answers(batch, step)
        rewards = self._rewards(batch, answers)
        spread = sum(bool((group != group[0]).any()) for group in rewards.view(-1, n))
        metrics: Metrics = {
            "reward": total(array(rewards)) / len(rewards),
            "groups_with_spread": spread / len(batch),
            "length": int(answers.sampled.sum()) / len(rewards),
            "tokens": int(answers.sampled.sum()),
            "policy_digest": answers.policy_digest,
        }
        if not spread and not config.kl_weight:
            return {"loss": 0.0, "kl": 0.0, "logprob_gap": 0.0, **metrics}, False
        return {**self._learn(answers, rewards), **metrics}, True

    def held_out(self, examples: Sequence[Question]) -> Mapping[str, float]:
        ids = [list(question.ids) for question in examples]
        output = self._model.generate(ids, max_new_tokens=self._config.max_new_tokens)
        rewards = self._scored(examples, output.text)
        return {"held_out_reward": total(rewards) / len(rewards)}

    def _answers(self, batch: Sequence[Question], step: int) -> Rollouts:
        salt = hashlib.sha256(f"{self._config.seed} {step}".encode()).digest()
        return rollout(
            self._model,
            [list(question.ids) for question in batch],
            n=self._config.samples,
            max_new_tokens=self._config.max_new_tokens,
            temperature=self._config.temperature,
            seed=int.from_bytes(salt[:6], "big"),
        )

    def _rewards(self, batch: Sequence[Question], answers: Rollouts) -> torch.Tensor:
        asked = [question for question in batch for _ in range(self._config.samples)]
        return torch.tensor(self._scored(asked, answers.text), dtype=torch.float64, device="cpu")

    def _scored(self, asked: Sequence[Question], texts: Sequence[str]) -> list[float]:
        """A reward for each text. Raises ValueError for one that is no finite number."""
        names = sorted({name for question in asked for name in question.row} - {"prompt"})
        columns: dict[str, Any] = {n: [question.row.get(n) for question in asked] for n in names}
        prompts = [question.row["prompt"] for question in asked]
        rewards = [
            float(r) for r in self._reward(prompts=prompts, completions=list(texts), **columns)
        ]
        if len(rewards) != len(texts):
            raise ValueError(f"reward: {len(rewards)} numbers for {len(texts)} completions")
        for i, value in enumerate(rewards):
            if not np.isfinite(value):
                raise ValueError(f"reward: {value} for the completion {texts[i]!r}")
        return rewards

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
                distance += _divergence(reference, logprobs, sampled[rows])
            loss = self._loss(logprobs, old, gains[rows], sampled[rows], reference, len(rewards))
            loss.backward()  # type: ignore[no-untyped-call]
            found.append(float(loss.detach()))
        if gap:
            raise RuntimeError(
                f"the policy under training is not the one that answered: log-probabilities differ "
                f"by up to {gap}; hooks, overrides or another thread changed the model in between"
            )
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


def _divergence(
    reference: torch.Tensor, logprobs: torch.Tensor, sampled: torch.Tensor
) -> list[float]:
    """exp(d) - d - 1 of each sampled token (Schulman 2020)."""
    gap = (array(reference) - array(logprobs))[sampled.numpy()]
    return list(map(float, (exp(gap) - gap) - 1.0))
