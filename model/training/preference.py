"""Direct Preference Optimization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from . import losses
from .config import TrainConfig
from .examples import ExampleReader, Pair, Row
from .fixed_math import F64, total
from .method import Metrics
from .padded import Padded, Policy, parts

Sums = tuple[torch.Tensor, torch.Tensor]


class Preference:
    """Method "dpo": pairs, against the log-probabilities of the first policy."""

    def __init__(self, model: Policy, reference: Policy, config: TrainConfig) -> None:
        self._model = model
        self._reference = reference
        self._config = config

    def examples(self, row: Row, reader: ExampleReader) -> Sequence[Pair]:
        return [reader.pair(row)]

    def backward(self, batch: Sequence[Pair], step: int) -> tuple[Metrics, bool]:
        each: list[float] = []
        margins: list[float] = []
        n_tokens = 0
        for part in parts(batch, self._config.microbatch):
            padded = _padded(part)
            each_B, found = self._each(part, padded)
            each_B.backward(torch.full_like(each_B, 1 / len(batch)))  # type: ignore[no-untyped-call]
            each += each_B.tolist()
            margins += found.tolist()
            n_tokens += int(padded.scored.sum())
        found_all = _metrics(each, np.array(margins))
        return {**found_all, "tokens": n_tokens}, True

    def held_out(self, examples: Sequence[Pair]) -> Mapping[str, float]:
        each: list[float] = []
        margins: list[float] = []
        with torch.no_grad():
            for part in parts(examples, self._config.microbatch):
                each_B, found = self._each(part, _padded(part))
                each += each_B.tolist()
                margins += found.tolist()
        metrics = _metrics(each, np.array(margins))
        return {f"held_out_{name}": value for name, value in metrics.items()}

    def _each(self, part: Sequence[Pair], padded: Padded) -> tuple[torch.Tensor, F64]:
        """Each pair's loss, and how far its chosen answer is ahead."""
        own = self._sums(self._model, padded)
        with torch.no_grad():
            first = self._sums(self._reference, padded)
        lengths, config = self._lengths(padded), self._config
        each_B = losses.dpo_each(
            *own,
            *first,
            beta=config.dpo_beta,
            kind="ipo" if config.preference == "ipo" else "sigmoid",
            labels_B=torch.tensor([p.label for p in part], dtype=torch.float64, device="cpu"),
            lengths_B=lengths,
        )
        return each_B, losses.dpo_margins(*own, *first, lengths_B=lengths)

    def _sums(self, policy: Policy, padded: Padded) -> Sums:
        sums = losses.sequence_logprobs(padded.logprobs(policy), padded.scored)
        return sums[0::2], sums[1::2]

    def _lengths(self, padded: Padded) -> Sums | None:
        """Scored tokens of both, where log-ratios are divided by them."""
        if not self._config.by_length and self._config.preference != "ipo":
            return None
        lengths = padded.scored.sum(1)
        return lengths[0::2], lengths[1::2]


def _metrics(each: list[float], margins: F64) -> dict[str, float]:
    right = float((margins > 0).sum() + 0.5 * (margins == 0).sum())
    return {
        "loss": total(each) / len(each),
        "accuracy": right / margins.size,
        "margin": total(margins) / margins.size,
    }


def _padded(pairs: Sequence[Pair]) -> Padded:
    """Chosen and rejected in turn, so that no cut between pairs changes the order of sequences."""
    return Padded.of([example for pair in pairs for example in (pair.chosen, pair.rejected)])
