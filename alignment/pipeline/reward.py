"""The reward of GRPO and RLOO: trained models' rewards, normalised on a fixed set and summed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...model.training import TrainConfig, train
from ...model.transformer import HookedTransformer
from ..preferences.pairs import AnswerPair
from ..revision.targets import as_answer, as_prompt
from ..rewards import Merit, ModelReward, Normaliser, merit, weighted_sum

Fresh = Callable[[], HookedTransformer]
"""Makes the model that reward models begin from."""


@dataclass(frozen=True)
class SummedReward:
    """The weighted sum of rewards, each in units of its spread on the fixed set."""

    models: Mapping[str, ModelReward]
    normaliser: Normaliser
    weights: Mapping[str, float]

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], **columns: Any
    ) -> list[float]:
        """Returns the reward of each completion, as training calls it."""
        found = {name: m.rewards(prompts, completions) for name, m in self.models.items()}
        return weighted_sum(self.normaliser.normalised(found), self.weights)


def trained_reward(
    fresh: Fresh,
    pairs: Mapping[str, tuple[Sequence[AnswerPair], Sequence[AnswerPair]]],
    weights: Mapping[str, float],
    config: TrainConfig,
    output: Path,
    *,
    chat: bool,
) -> tuple[SummedReward, dict[str, Merit]]:
    """Trains a reward model for each kind of pairs.

    Args:
        pairs: To train on and held out, by the reward's name; "harmlessness" has the AI labels as
            truths, and its answers are the fixed set.
        output: The folder of the runs.

    Returns the sum, and the merit of each against length and words alone.
    """
    models, merits = {}, {}
    for name, (own, held_out) in pairs.items():
        run = train(fresh(), config, data=pair_rows(own, chat=chat), output=output / f"rm-{name}")
        models[name] = ModelReward(fresh(), run.checkpoint)
        merits[name] = merit(models[name], own, held_out)
    fixed = [(p.prompt, text) for p in pairs["harmlessness"][0] for text in (p.first, p.second)]
    prompts, texts = [prompt for prompt, _ in fixed], [text for _, text in fixed]
    normaliser = Normaliser.of({n: m.rewards(prompts, texts) for n, m in models.items()})
    return SummedReward(models, normaliser, {name: weights[name] for name in models}), merits


def pair_rows(pairs: Sequence[AnswerPair], *, chat: bool, **columns: Any) -> list[dict[str, Any]]:
    """Returns rows for methods "dpo" and "rm", with the truth as a soft label.

    Pairs whose truth is a half or unknown teach nothing, and are left out. Raises ValueError where
    nothing is left.
    """
    found = [
        {
            "prompt": as_prompt(pair.prompt, chat),
            "chosen": as_answer(pair.first, chat),
            "rejected": as_answer(pair.second, chat),
            "label": pair.truth,
            **columns,
        }
        for pair in pairs
        if pair.truth is not None and pair.truth != 0.5
    ]
    if not found:
        raise ValueError("pairs: every label is a half or missing, so there is nothing to train on")
    return found
