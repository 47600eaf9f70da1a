"""Blocks one after another, operation by operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..block import Block
from ..ops.interface import Ops
from ..run import Run


class UnfusedRunner:
    """Calls each block, as for one that is watched; works with every backend."""

    taps: frozenset[str] = frozenset()
    taps_ranges = False

    def __init__(self, blocks: Sequence[Block], ops: Ops) -> None:
        self._blocks = blocks

    def run(self, start: int, stop: int, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        for block in self._blocks[start:stop]:
            resid_Td = block(resid_Td, run)
        return resid_Td
