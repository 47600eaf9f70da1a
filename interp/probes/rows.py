"""The rows of conversations, one after the other: what probes are fitted on and score.

Shapes: B conversations, S positions, N tokens of all conversations, D width, F features, E active
features of all tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..dictionaries import Features


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Tokens of conversations without padding.

    Attributes:
        rows: Dense fp32 [N, D], or sparse features of shape (N, F).
        starts: int64 [B + 1]: conversation b has rows starts[b] to starts[b + 1].
        columns: Where each row stood in what was handed over, as b * S + s, int64 [N].
        shape: (B, S) of what was handed over.
    """

    rows: torch.Tensor | Features
    starts: torch.Tensor
    columns: torch.Tensor
    shape: tuple[int, int]

    @property
    def n_conversations(self) -> int:
        return len(self.starts) - 1

    @property
    def width(self) -> int:
        """The width of a row, D or F."""
        return int(self.rows.shape[-1])

    def take(self, conversations: torch.Tensor) -> TokenRows:
        """Returns some conversations, in the order of their numbers, int64."""
        kept = [
            torch.arange(*self.starts[b : b + 2].tolist(), device="cpu")
            for b in conversations.tolist()
        ]
        at = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.int64, device="cpu")
        return _gathered(self.rows, at, [len(k) for k in kept])

    def without_first(self, n: int | torch.Tensor) -> TokenRows:
        """Returns the conversations without their first `n` tokens, each its own n if int64 [B]."""
        first = torch.as_tensor(n).expand(self.n_conversations)
        if not bool(first.any()):
            return self
        position = torch.arange(len(self.columns), device="cpu") - torch.repeat_interleave(
            self.starts[:-1], self.starts.diff()
        )
        kept = position >= torch.repeat_interleave(first, self.starts.diff())
        counts = (self.starts.diff() - first).clamp(min=0)
        return TokenRows(
            _select(self.rows, kept.nonzero()[:, 0]), _cumulated(counts), self.columns[kept],
            self.shape,
        )  # fmt: skip

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """Returns values of the rows, [N], where they stood, [B, S]; NaN elsewhere."""
        out = torch.full((math.prod(self.shape),), math.nan, dtype=torch.float32, device="cpu")
        out[self.columns] = values
        return out.view(self.shape)

    def means(self) -> torch.Tensor | Any:
        """Returns the mean row of each conversation: fp64 [B, D], or a scipy CSR matrix [B, F] of
        sparse features. Raises ValueError for a conversation without tokens."""
        self.check_none_empty()
        counts = self.starts.diff()
        if isinstance(self.rows, Features):
            return _sparse_means(self.rows, self.starts)
        owner = torch.repeat_interleave(torch.arange(self.n_conversations, device="cpu"), counts)
        total = torch.zeros(self.n_conversations, self.width, dtype=torch.float64, device="cpu")
        total.index_add_(0, owner, self.rows.double())
        return total / counts[:, None]

    def check_none_empty(self) -> None:
        """Raises ValueError naming the first conversation without tokens."""
        empty = (self.starts.diff() == 0).nonzero()
        if len(empty):
            raise ValueError(
                f"conversation {int(empty[0])} has no token to score: its mask is empty, or it is "
                "no longer than the tokens that the probe skips"
            )


def token_rows(
    x: torch.Tensor | Features | TokenRows, mask: torch.Tensor | None = None
) -> TokenRows:
    """Returns the rows of activations or features.

    Args:
        x: [B, S, D] or, one row a conversation, [B, D]; Features of either shape; or TokenRows.
        mask: Bool or 0/1 [B, S], real tokens; all are where it is None.

    Raises ValueError for another shape, a mask that does not fit, and NaN or infinity.
    """
    if isinstance(x, TokenRows):
        if mask is not None:
            raise ValueError("a mask beside TokenRows, which have no padding")
        return x
    if isinstance(x, torch.Tensor):
        x = x.cpu()  # probes run there, whatever the model does
    shape = tuple(x.shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"expected activations [B, S, D] or [B, D], got {list(shape)}")
    batch, positions = (shape[0], shape[1]) if len(shape) == 3 else (shape[0], 1)
    values = x.values if isinstance(x, Features) else x
    if not values.is_floating_point():
        raise ValueError(f"expected activations of a floating-point dtype, got {values.dtype}")
    real = torch.ones(batch, positions, dtype=torch.bool, device="cpu")
    if mask is not None:
        if tuple(mask.shape) != (batch, positions):
            raise ValueError(f"a mask {list(mask.shape)} beside {batch} x {positions} positions")
        real = mask.cpu().bool()
    at = real.flatten().nonzero()[:, 0]
    flat = (
        x.reshaped((batch * positions, shape[-1]))
        if isinstance(x, Features)
        else (x.detach().reshape(batch * positions, shape[-1]))
    )
    rows = _select(flat, at)
    kept = rows.values if isinstance(rows, Features) else rows
    if not bool(torch.isfinite(kept).all()):
        raise ValueError("the activations hold NaN or infinity at a token that the mask keeps")
    return TokenRows(rows, _cumulated(real.sum(1)), at, (batch, positions))


def ragged(rows: torch.Tensor | Features, lengths: Sequence[int]) -> TokenRows:
    """Returns rows that already stand conversation after conversation, of these lengths.

    Raises ValueError where the lengths do not add up.
    """
    if sum(lengths) != rows.shape[0]:
        raise ValueError(f"lengths add up to {sum(lengths)}, there are {rows.shape[0]} rows")
    longest = max(lengths, default=0)
    counts = torch.tensor(list(lengths), dtype=torch.int64, device="cpu")
    starts = _cumulated(counts)
    position = torch.arange(rows.shape[0], device="cpu") - torch.repeat_interleave(
        starts[:-1], counts
    )
    owner = torch.repeat_interleave(torch.arange(len(counts), device="cpu"), counts)
    return TokenRows(rows, starts, owner * longest + position, (len(counts), longest))


def _gathered(rows: torch.Tensor | Features, at: torch.Tensor, lengths: list[int]) -> TokenRows:
    return ragged(_select(rows, at), lengths)


def _select(rows: torch.Tensor | Features, at: torch.Tensor) -> torch.Tensor | Features:
    if isinstance(rows, torch.Tensor):
        return (rows if len(at) == len(rows) else rows[at]).float().contiguous()
    counts = rows.indptr.diff()[at]
    indptr = _cumulated(counts)
    first = torch.repeat_interleave(rows.indptr[:-1][at] - indptr[:-1], counts)
    entries = first + torch.arange(int(indptr[-1]), device="cpu")
    shape = (len(at), rows.shape[-1])
    return Features(indptr, rows.indices[entries], rows.values[entries], shape)


def _sparse_means(features: Features, starts: torch.Tensor) -> Any:
    from scipy.sparse import csr_matrix

    entries = features.indptr[starts]  # where each conversation's entries begin
    counts = starts.diff()
    weight = torch.repeat_interleave(1 / counts.double(), entries.diff())
    found = csr_matrix(
        ((features.values.double() * weight).numpy(), features.indices.numpy(), entries.numpy()),
        shape=(len(counts), features.shape[-1]),
        copy=True,  # what follows sorts and merges in place
    )
    found.sum_duplicates()
    return found


def _cumulated(counts: torch.Tensor) -> torch.Tensor:
    starts = torch.zeros(len(counts) + 1, dtype=torch.int64, device="cpu")
    torch.cumsum(counts, 0, out=starts[1:])
    return starts
