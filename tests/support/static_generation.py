"""`generate` in passes of its own: the reference of whatever runs in the engine's batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from bitlens.model import HookedTransformer
from bitlens.model.batching.continuous_batch import ContinuousBatch
from bitlens.model.generation import GenerateOutput, batched_decoding
from bitlens.model.generation.decoding import Decoding


def static(model: HookedTransformer, prompt: Any, **options: Any) -> GenerateOutput:
    """Returns what `generate` does in static passes."""
    with static_passes():
        return model.generate(prompt, **options)


@contextmanager
def static_passes() -> Iterator[None]:
    """Has `generate` take static passes in a block. Raises AssertionError unless it took them."""
    with mock.patch.object(batched_decoding, "BatchedDecoding", Decoding), batch_steps() as steps:
        yield
    assert not steps, "the reference ran in the batch"


@contextmanager
def batch_steps() -> Iterator[list[int]]:
    """Lists, for each step that a batch takes within a block, the rows that run when it ends."""
    steps: list[int] = []
    step = ContinuousBatch.step

    def counted(self: ContinuousBatch[Any]) -> bool:
        ran = step(self)
        steps.append(len(self.queues.running))
        return ran

    with mock.patch.object(ContinuousBatch, "step", counted):
        yield steps
