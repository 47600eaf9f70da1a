"""Supervised fine-tuning and continued pretraining: next-token cross entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from . import losses
from .config import TrainConfig
from .examples import Example, ExampleReader, Row
from .fixed_math import total
from .loss_node import array
from .method import Metrics
from .padded import Padded, Policy, parts


class Supervised:
    """Methods "sft", on tokens that count, and "lm", on every token."""

    def __init__(self, model: Policy, config: TrainConfig) -> None:
        self._model = model
        self._config = config

    def examples(self, row: Row, reader: ExampleReader) -> Sequence[Example]:
        return reader.pieces(row) if self._config.method == "lm" else [reader.text(row)]

    def backward(self, batch: Sequence[Example], step: int) -> tuple[Metrics, bool]:
        count = sum(sum(example.scored()) for example in batch)
        found: list[float] = []
        for part in parts(batch, self._config.microbatch):
            padded = Padded.of(part)
            logprobs = padded.logprobs(self._model)
            losses.sft(logprobs, padded.scored, count=count).backward()  # type: ignore[no-untyped-call]
            found += array(logprobs[padded.scored]).tolist()
        return {"loss": -total(found) / count, "tokens": count}, True

    def held_out(self, examples: Sequence[Example]) -> Mapping[str, float]:
        found: list[float] = []
        with torch.no_grad():
            for part in parts(examples, self._config.microbatch):
                padded = Padded.of(part)
                found += array(padded.logprobs(self._model)[padded.scored]).tolist()
        return {"held_out_loss": -total(found) / len(found)}
