"""A reward of whole texts: a linear head on the last norm's output at the last real token.

Tensor names: B sequences, P padded positions, d d_model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..scores import head_scores
from ..transformer import HookedTransformer
from . import losses
from .config import TrainConfig
from .examples import ExampleReader, Pair, Row
from .fixed_math import F64, total
from .head import trained_head
from .loss_node import array
from .method import Metrics
from .padded import Padded, parts

HEAD = "reward.weight"


class RewardModel:
    """A model under training with a head, which `model.trained.values["reward.weight"]` holds.

    The head begins as zeros. `load_weights` puts a run's weights, the head among them, into
    `model.trained` of one that was made before.
    """

    def __init__(self, model: HookedTransformer) -> None:
        """Raises ValueError for a model without `trainable`."""
        self.model = model
        self._head = trained_head(model, HEAD)

    def scores(
        self, tokens: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the reward of each text, fp32 [B]; arguments as `model.forward`'s."""
        return head_scores(self.model.forward_pass, tokens, attention_mask, self._head)


class Reward:
    """Method "rm": pairs, by Bradley and Terry's model."""

    def __init__(self, model: HookedTransformer, config: TrainConfig) -> None:
        self._model = RewardModel(model)
        self._config = config

    def examples(self, row: Row, reader: ExampleReader) -> Sequence[Pair]:
        return [reader.pair(row)]

    def backward(self, batch: Sequence[Pair], step: int) -> tuple[Metrics, bool]:
        each: list[float] = []
        gaps: list[float] = []
        n_tokens = 0
        for part in parts(batch, self._config.microbatch):
            each_B, gap = self._each(part)
            each_B.backward(torch.full_like(each_B, 1 / len(batch)))  # type: ignore[no-untyped-call]
            each += each_B.tolist()
            gaps += gap.tolist()
            n_tokens += sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in part)
        return {**_metrics(each, np.array(gaps)), "tokens": n_tokens}, True

    def held_out(self, examples: Sequence[Pair]) -> Mapping[str, float]:
        """`longer_is_chosen` is the accuracy of looking at lengths alone."""
        each: list[float] = []
        gaps: list[float] = []
        with torch.no_grad():
            for part in parts(examples, self._config.microbatch):
                each_B, gap = self._each(part)
                each += each_B.tolist()
                gaps += gap.tolist()
        longer = [float(len(pair.chosen.ids) - len(pair.rejected.ids)) for pair in examples]
        found = _metrics(each, np.array(gaps))
        found["longer_is_chosen"] = _accuracy(np.array(longer))
        return {f"held_out_{name}": value for name, value in found.items()}

    def _each(self, part: Sequence[Pair]) -> tuple[torch.Tensor, F64]:
        """Each pair's loss, and how far the chosen answer's reward is ahead."""
        padded = Padded.of([one for pair in part for one in (pair.chosen, pair.rejected)])
        scores = self._model.scores(padded.tokens, padded.mask)
        chosen, rejected = scores[0::2], scores[1::2]
        of_pairs = torch.tensor(
            [(pair.label, pair.margin) for pair in part], dtype=torch.float64, device="cpu"
        )
        each_B = losses.reward_each(
            chosen,
            rejected,
            labels_B=of_pairs[:, 0],
            margin_B=of_pairs[:, 1],
            centering=self._config.centering,
        )
        return each_B, array(chosen) - array(rejected)


def _metrics(each: list[float], gaps: F64) -> dict[str, float]:
    return {
        "loss": total(each) / len(each),
        "accuracy": _accuracy(gaps),
        "margin": total(gaps) / gaps.size,
    }


def _accuracy(gaps: F64) -> float:
    return float((gaps > 0).sum() + 0.5 * (gaps == 0).sum()) / gaps.size
