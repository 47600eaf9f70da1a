"""The sequences of a batch over their pages, as kernels on a GPU are told of them.

Tensor names: B sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ...cache.page_pool import PAGE


@dataclass(frozen=True, eq=False)
class Sequences:
    """Rows starts[b] .. starts[b + 1] are sequence b's, at positions past[b] on.

    Attributes:
        starts_B1, past_B: int64, on the device.
        table: int32 [B, pages a sequence may have], on the device.
        longest: The most new rows of a sequence.
        keys: At least those of the longest sequence, its new rows included.
    """

    starts_B1: torch.Tensor
    past_B: torch.Tensor
    table: torch.Tensor
    longest: int
    keys: int

    @classmethod
    def on(
        cls,
        device: torch.device,
        page_table: torch.Tensor,
        starts_B1: torch.Tensor,
        past_B: torch.Tensor,
    ) -> Sequences:
        """Returns them on a device."""
        counts = starts_B1[1:] - starts_B1[:-1]
        longest, keys = int(counts.max()), int((past_B + counts).max())
        return cls(starts_B1.to(device), past_B.to(device), page_table.to(device), longest, keys)

    def widened(self, step: int) -> Sequences:
        """Returns them with keys, and room for pages, up to a multiple of `step`."""
        keys = -(-self.keys // step) * step
        width = max(self.table.shape[1], keys // PAGE)
        table = F.pad(self.table, (0, width - self.table.shape[1]))
        return Sequences(self.starts_B1, self.past_B, table, self.longest, keys)

    def clone(self) -> Sequences:
        """Returns them in memory of their own."""
        starts_B1, past_B, table = self.starts_B1.clone(), self.past_B.clone(), self.table.clone()
        return Sequences(starts_B1, past_B, table, self.longest, self.keys)

    def copy_(self, other: Sequences) -> None:
        """Takes the numbers of others of the same shape."""
        for mine, theirs in zip(
            (self.starts_B1, self.past_B, self.table),
            (other.starts_B1, other.past_B, other.table),
            strict=True,
        ):
            mine.copy_(theirs)
