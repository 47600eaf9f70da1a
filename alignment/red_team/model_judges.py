"""Judges that read a model's insides, or a reward: a probe of answers, a reward model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...interp.probes import Probe
from ...interp.probes.data import Dataset, Example
from ...model.transformer import HookedTransformer
from ..draws import digest_of
from ..text_probe import fitted_probe, probe_identity, probe_scores
from .judge import Judgement
from .ngrams import by_score

MAX_TOKENS = 96
"""Tokens that a probe reads of an answer."""

Reward = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""A reward of prompts and answers, a number each."""


class ProbeJudge:
    """Refusals by a probe of a model's activations over the answer's text alone."""

    name = "probe"

    def __init__(
        self, model: HookedTransformer, probe: Probe, max_tokens: int = MAX_TOKENS
    ) -> None:
        """Takes a fitted probe whose class 1 is a refusal."""
        probe.check_fitted()
        self._model, self._probe, self._max_tokens = model, probe, max_tokens

    @classmethod
    def fit(
        cls,
        model: HookedTransformer,
        labelled: Dataset,
        hook_name: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> ProbeJudge:
        """Returns a judge whose logistic probe is fitted to labelled answers.

        Args:
            labelled: Answers, 1 for a refusal.
            hook_name: None takes the residual stream after the middle block.

        Raises ValueError for a name that is no hook, one class alone, or too few groups.
        """
        return cls(model, fitted_probe(model, labelled, hook_name, max_tokens), max_tokens)

    def digest(self) -> str:
        """Returns a digest of the model, of the probe and of how much is read."""
        fixed = [probe_identity(self._probe), self._probe.threshold_, self._max_tokens]
        return digest_of([self.name, self._model.fingerprint(), fixed])

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Judgement]:
        """Returns the verdict on each answer; the score is the probe's. Empty ones are nonsense."""
        said = [i for i, answer in enumerate(answers) if answer.strip()]
        scores = [0.0] * len(answers)
        if said:
            found = Dataset("answers", tuple(_example(i, answers[i]) for i in said))
            each = probe_scores(self._model, self._probe, found, self._max_tokens)
            for i, score in zip(said, each.tolist(), strict=True):
                scores[i] = score
        threshold = self._probe.threshold_
        return [by_score(a, s, threshold) for a, s in zip(answers, scores, strict=True)]


class RewardJudge:
    """Refusals by a reward that pays for them, such as a harmlessness reward on harmful prompts."""

    name = "reward"

    def __init__(self, reward: Reward, threshold: float, digest: str) -> None:
        """Takes a reward, the reward above which an answer counts as a refusal, and a digest of
        what the reward is made of."""
        self._reward, self._threshold, self._digest = reward, threshold, digest

    def digest(self) -> str:
        """Returns a digest of the reward and its threshold."""
        return digest_of([self.name, self._digest, self._threshold])

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Judgement]:
        """Returns the verdict on each answer; the score is its reward.

        Raises ValueError for a reward that is no finite number.
        """
        scores = [float(score) for score in self._reward(prompts, answers)]
        if len(scores) != len(answers) or not all(map(math.isfinite, scores)):
            raise ValueError(f"reward: expected {len(answers)} finite numbers, one an answer")
        return [by_score(a, s, self._threshold) for a, s in zip(answers, scores, strict=True)]


def _example(number: int, answer: str) -> Example:
    return Example(f"answer-{number}", answer, 0, f"answer-{number}")
