"""The state of a generation, as a hook function may ask it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class GenerationStep:
    """The pass that a generation is in.

    Attributes:
        index: 0 for the pass over the prompts, then 1 for each pass over a new token.
        prompts: Token ids of each row's prompt.
        new: Token ids that each row has written so far, those that this pass runs on included.
    """

    index: int
    prompts: Sequence[Sequence[int]]
    new: Sequence[Sequence[int]]

    def tokens(self, row: int) -> list[int]:
        """Returns the ids of a row so far, the prompt's first."""
        return [*self.prompts[row], *self.new[row]]


_STEP: ContextVar[GenerationStep | None] = ContextVar("bitlens_generation_step", default=None)


def generation_step() -> GenerationStep | None:
    """Returns the step of the generation under way in this context; None outside of one."""
    return _STEP.get()


@contextmanager
def at_step(step: GenerationStep) -> Iterator[None]:
    """Makes a step the current one in a block."""
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)
