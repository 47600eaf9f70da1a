"""The interface of runners, which run the blocks that nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from ..block import Block
from ..run import Run


class Runner(Protocol):
    """One way to run a model's blocks. All give the same bits; they differ in speed.

    Attributes:
        taps: Names inside a block, less "blocks.i.", that are captured on the way.
        taps_ranges: Whether a range may hold several tapped blocks; what is captured between its
            blocks is then served by the runner, too. Otherwise a tapped block is a range of its
            own.
    """

    taps: frozenset[str]
    taps_ranges: bool

    def run(self, start: int, stop: int, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        """The residual stream [T, d] after blocks start .. stop - 1 of the model's, inside which
        nothing is hooked or overridden.

        Captures of `taps` inside a block are served here.
        """
        ...


RunnerFactory = Callable[[Sequence[Block], Any], Runner]
"""Makes a runner from a model's blocks and the operations they were built with."""
