"""Answers of the policy under training, and what a reward function says of them.

Tensor names: R rows, prompt-major, P positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..transformer import HookedTransformer
from .config import TrainConfig
from .examples import Question
from .fixed_math import exp, total
from .loss_node import array
from .method import Metrics
from .rollout import Rollouts, rollout

RewardFunction = Callable[..., Sequence[float]]
"""Called as TRL calls one: `reward(prompts=[...], completions=[...], **columns)`, where columns are
the other fields of the data's rows, each a list; returns a number for each completion."""


class Answers:
    """Samples answers, the same for the same weights, seed and round, and rewards them."""

    def __init__(
        self, model: HookedTransformer, config: TrainConfig, reward: RewardFunction
    ) -> None:
        self._model, self._config, self._reward = model, config, reward

    def sample(self, batch: Sequence[Question], round_: int) -> tuple[Rollouts, torch.Tensor]:
        """Returns answers to a batch of questions and their rewards, fp64 [R]."""
        answers = self._sampled(batch, round_)
        asked = [question for question in batch for _ in range(self._config.samples)]
        rewards = self.scored(asked, answers.text)
        return answers, torch.tensor(rewards, dtype=torch.float64, device="cpu")

    def held_out(self, examples: Sequence[Question]) -> Mapping[str, float]:
        """Returns the mean reward of greedy answers."""
        ids = [list(question.ids) for question in examples]
        output = self._model.generate(ids, max_new_tokens=self._config.max_new_tokens)
        rewards = self.scored(examples, output.text)
        return {"held_out_reward": total(rewards) / len(rewards)}

    def _sampled(self, batch: Sequence[Question], step: int) -> Rollouts:
        salt = hashlib.sha256(f"{self._config.seed} {step}".encode()).digest()
        return rollout(
            self._model,
            [list(question.ids) for question in batch],
            n=self._config.samples,
            max_new_tokens=self._config.max_new_tokens,
            temperature=self._config.temperature,
            seed=int.from_bytes(salt[:6], "big"),
        )

    def scored(self, asked: Sequence[Question], texts: Sequence[str]) -> list[float]:
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


def summary(answers: Rollouts, rewards: torch.Tensor) -> Metrics:
    """Returns the mean reward and length of answers, for the log."""
    return {
        "reward": total(array(rewards)) / len(rewards),
        "length": int(answers.sampled.sum()) / len(rewards),
        "tokens": int(answers.sampled.sum()),
        "policy_digest": answers.policy_digest,
    }


def check_same_policy(gap: float) -> None:
    """Raises RuntimeError if log-probabilities are not those that answers were sampled with."""
    if gap:
        raise RuntimeError(
            f"the policy under training is not the one that answered: log-probabilities differ "
            f"by up to {gap}; hooks, overrides or another thread changed the model in between"
        )


def token_divergence(
    reference: torch.Tensor, logprobs: torch.Tensor, sampled: torch.Tensor
) -> list[float]:
    """Returns exp(d) - d - 1 of each sampled token, whose mean estimates KL (Schulman 2020)."""
    gap = (array(reference) - array(logprobs))[sampled.numpy()]
    return list(map(float, (exp(gap) - gap) - 1.0))
