"""Proximal Policy Optimization: answers are sampled once, and learnt from in several steps.

The critic is a head on the policy's own last norm; rewards hold a penalty of KL to the first policy
(Stiennon et al. 2020). Tensor names: R rows, prompt-major, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..scores import logprobs_and_values
from ..transformer import HookedTransformer
from . import advantages, losses
from .answers import Answers, RewardFunction, check_same_policy, summary, token_divergence
from .config import TrainConfig
from .examples import ExampleReader, Question, Row
from .fixed_math import total
from .head import trained_head
from .loss_node import array
from .method import Metrics
from .padded import Policy
from .rollout import Rollouts

HEAD = "value.weight"


@dataclass(frozen=True, eq=False)
class _Experience:
    """Answers and what is learnt from them; fp64 [R, P] but for the answers and metrics."""

    answers: Rollouts
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    metrics: Metrics


class Proximal:
    """Method "ppo"."""

    def __init__(
        self,
        model: HookedTransformer,
        reference: Policy | None,
        config: TrainConfig,
        reward: RewardFunction,
    ) -> None:
        self._model, self._reference, self._config = model, reference, config
        self._answers = Answers(model, config, reward)
        self._head = trained_head(model, HEAD)
        self._experience: _Experience | None = None

    def examples(self, row: Row, reader: ExampleReader) -> Sequence[Question]:
        return [reader.question(row)]

    def held_out(self, examples: Sequence[Question]) -> Mapping[str, float]:
        return self._answers.held_out(examples)

    def backward(self, batch: Sequence[Question], step: int) -> tuple[Metrics, bool]:
        first = self._config.begins_round(step)
        if first:
            self._experience = self._experienced(batch, self._config.round_of(step))
        assert self._experience is not None, "runs go on from where a round begins"
        return {**self._learn(self._experience, first), **self._experience.metrics}, True

    def _experienced(self, batch: Sequence[Question], round_: int) -> _Experience:
        answers, rewards = self._answers.sample(batch, round_)
        sampled = answers.sampled
        with torch.no_grad():
            values = torch.cat(
                [self._scored(answers, rows)[1] for rows in self._parts(len(rewards))]
            )
        old = answers.logprobs.nan_to_num()
        reference, kl = old, 0.0
        if self._reference is not None:
            reference = self._references(answers)
            distance = token_divergence(reference, old, sampled)
            kl = total(distance) / len(distance)
        gap = np.where(sampled.numpy(), array(old) - array(reference), 0.0)
        rewards_RP = -self._config.kl_weight * gap
        ends = sampled.shape[1] - 1 - np.argmax(sampled.numpy()[:, ::-1], axis=1)
        rewards_RP[np.arange(len(ends)), ends] += array(rewards)
        gains, returns = advantages.gae(
            torch.from_numpy(rewards_RP), values, sampled, smoothing=self._config.gae_lambda
        )
        metrics = {**summary(answers, rewards), "kl": kl, "logprob_gap": 0.0}
        gains = advantages.whitened(gains, sampled)
        return _Experience(answers, values, gains, returns, metrics)

    def _references(self, answers: Rollouts) -> torch.Tensor:
        assert self._reference is not None, "there is a penalty"
        found = []
        with torch.no_grad():
            for rows in self._parts(len(answers.tokens)):
                batch = answers.tokens[rows], answers.attention_mask[rows]
                settings: dict[str, Any] = {
                    "scored": answers.sampled[rows], "temperature": self._config.temperature
                }  # fmt: skip
                found.append(self._reference.logprobs(*batch, **settings))
        return torch.cat(found)

    def _learn(self, experience: _Experience, first: bool) -> Metrics:
        """Adds the gradients of a step."""
        answers, found = experience.answers, []
        sampled, gap = answers.sampled, 0.0
        for rows in self._parts(len(answers.tokens)):
            logprobs, values = self._scored(answers, rows)
            old = answers.logprobs[rows].nan_to_num()
            gap = max(gap, float((logprobs.detach() - old).abs()[sampled[rows]].max()))
            loss = losses.ppo(
                logprobs,
                old,
                experience.advantages[rows],
                sampled[rows],
                values_BP=values,
                old_values_BP=experience.values[rows],
                returns_BP=experience.returns[rows],
                epsilon=self._config.epsilon,
                value_weight=self._config.value_weight,
                count=int(sampled.sum()),
            )
            loss.backward()  # type: ignore[no-untyped-call]
            found.append(float(loss.detach()))
        if first:
            check_same_policy(gap)
        return {"loss": total(found), "moved": gap}

    def _scored(self, answers: Rollouts, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        return logprobs_and_values(
            self._model.forward_pass,
            answers.tokens[rows],
            answers.attention_mask[rows],
            answers.sampled[rows],
            self._config.temperature,
            self._head,
        )

    def _parts(self, n_rows: int) -> list[slice]:
        size = self._config.microbatch * self._config.samples
        return [slice(first, first + size) for first in range(0, n_rows, size)]
