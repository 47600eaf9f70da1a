"""Rotary tables of the native backend: cos and sin of position * frequency, in fp32.

Computed in fp64 with the fixed operation list of docs/numerics.md and rounded once; grown as longer
positions are asked for, so a long n_ctx costs nothing until it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ... import _core
from .scaling import Frequencies, RopeScaling, require_fixed, rotary_frequencies


@dataclass(frozen=True, eq=False)
class RopeTable:
    """cos and sin, fp32 [n_positions, d_head / 2] each."""

    cos: torch.Tensor
    sin: torch.Tensor

    @property
    def n_positions(self) -> int:
        return self.cos.shape[0]


class RopeTables:
    """One table for each base and scaling in use."""

    def __init__(self) -> None:
        self._tables: dict[tuple[float, int, RopeScaling | None], RopeTable] = {}

    def upto(
        self, theta: float, d_head: int, n_positions: int, scaling: RopeScaling | None = None
    ) -> RopeTable:
        """A table that holds positions 0 .. n_positions - 1 at least."""
        table = self._tables.get((theta, d_head, scaling))
        if table is None or table.n_positions < n_positions:
            size = max(256, 1 << (n_positions - 1).bit_length())
            table = self._tables[theta, d_head, scaling] = rope_table(theta, d_head, size, scaling)
        return table


def rope_table(
    theta: float, d_head: int, n_positions: int, scaling: RopeScaling | None = None
) -> RopeTable:
    """The rotary table of a base (Su et al. 2021, section 3.4.2).

    Raises ConfigError for a scaling whose frequencies follow the length: it has no one table.
    """
    require_fixed(scaling)
    return frequency_table(rotary_frequencies(theta, d_head, scaling), n_positions)


@torch.inference_mode(False)  # a table made now serves gradients later
def frequency_table(found: Frequencies, n_positions: int) -> RopeTable:
    """The rotary table of frequencies and an attention factor."""
    half = len(found.inv_freq)
    inv_freq = torch.tensor(found.inv_freq, dtype=torch.float64, device="cpu")
    shape = (n_positions, half)
    cos, sin = (torch.empty(shape, dtype=torch.float32, device="cpu") for _ in range(2))
    _core.rope_table(inv_freq, half, 0, n_positions, cos, sin, found.attention_factor)
    return RopeTable(cos, sin)
