"""A batch of token sequences without its padding.

Kernels see ragged rows: every real token of the batch, sequence after sequence. Hooks see padded
tensors. Tensor names: T ragged rows, B batch, P padded positions, K key positions, C key columns as
hooks see them, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True, eq=False)
class RaggedBatch:
    """The ragged rows of a batch: each row's sequence, and its token's position there.

    Attributes:
        n_columns: P, the width of the padded batch.
        lengths: New tokens of each sequence, at least 1.
        past: Tokens of each sequence already in the KV cache.
        offsets: Column of each sequence's first new token (0 unless padded on the left).
        key_offsets: Column of each sequence's key 0 in scores and patterns: the left padding of the
            batch that began the sequence.
    """

    n_columns: int
    lengths: list[int]
    past: list[int]
    offsets: list[int]
    key_offsets: list[int]
    device: torch.device

    @classmethod
    def from_tokens(
        cls,
        tokens_BP: torch.Tensor,
        attention_mask_BP: torch.Tensor | None = None,
        past_B: Sequence[int] | None = None,
        key_offsets_B: Sequence[int] | None = None,
    ) -> RaggedBatch:
        """Reads the shape of a padded batch.

        Args:
            tokens_BP: int64 [B, P].
            attention_mask_BP: [B, P], 1 or True at real tokens; None means all are. Padding may be
                on the left or on the right.
            past_B: Tokens already cached; None means none.
            key_offsets_B: Left padding the sequences began with; None means this batch begins them.

        Raises:
            ValueError: naming the argument, for shapes that do not fit, masks that are not 0/1 or
                have holes, and rows without a real token.
        """
        if tokens_BP.ndim != 2 or tokens_BP.dtype != torch.int64:
            raise ValueError(
                f"tokens: expected int64 [batch, positions], got "
                f"{tokens_BP.dtype} {list(tokens_BP.shape)}"
            )
        n_rows, n_columns = tokens_BP.shape
        if n_rows == 0 or n_columns == 0:
            raise ValueError(f"tokens: empty prompt, shape {list(tokens_BP.shape)}")
        if attention_mask_BP is None:
            lengths, offsets = [n_columns] * n_rows, [0] * n_rows
        else:
            lengths, offsets = _read_mask(attention_mask_BP, tokens_BP)
        return cls(
            n_columns=n_columns,
            lengths=lengths,
            past=[0] * n_rows if past_B is None else list(past_B),
            offsets=offsets,
            key_offsets=offsets if key_offsets_B is None else list(key_offsets_B),
            device=tokens_BP.device,
        )

    @property
    def size(self) -> int:
        """B, the number of sequences."""
        return len(self.lengths)

    @cached_property
    def starts(self) -> list[int]:
        """First ragged row of each sequence, and the number of rows: B + 1 entries."""
        starts = [0]
        for length in self.lengths:
            starts.append(starts[-1] + length)
        return starts

    @cached_property
    def starts_B1(self) -> torch.Tensor:
        """`starts` as int64 [B + 1] on the CPU."""
        if self._is_step:
            return torch.arange(self.size + 1, device="cpu")
        return torch.tensor(self.starts, dtype=torch.int64, device="cpu")

    @cached_property
    def past_B(self) -> torch.Tensor:
        """`past` as int64 [B] on the CPU."""
        return torch.tensor(self.past, dtype=torch.int64, device="cpu")

    @property
    def _is_step(self) -> bool:
        """Whether every sequence has one new token, as while decoding."""
        return self.n_rows == self.size

    @property
    def n_rows(self) -> int:
        """T, the number of real tokens."""
        return self.starts[-1]

    @cached_property
    def totals(self) -> list[int]:
        """Keys of each sequence once this batch is cached."""
        return [past + length for past, length in zip(self.past, self.lengths, strict=True)]

    @cached_property
    def n_keys(self) -> int:
        """K, the longest sequence, counted in positions of its own."""
        return max(self.totals)

    @cached_property
    def n_key_columns(self) -> int:
        """C, the key axis of scores and patterns as hooks see them."""
        return max(o + n for o, n in zip(self.key_offsets, self.totals, strict=True))

    @cached_property
    def positions_T(self) -> torch.Tensor:
        """Position of each row in its own sequence, int64 [T]."""
        if self._is_step:
            return self.past_B.to(self.device)
        if self.size == 1:
            return torch.arange(self.past[0], self.totals[0], device=self.device)
        spans = zip(self.past, self.totals, strict=True)
        return torch.cat([torch.arange(a, b, device=self.device) for a, b in spans])

    @cached_property
    def positions_BP(self) -> torch.Tensor:
        """`positions_T` in the padded batch, int64 [B, P]; -1 on padding."""
        return self.pad(self.positions_T + 1) - 1

    @cached_property
    def last_rows_B(self) -> torch.Tensor:
        """Ragged row of each sequence's last token, int64 [B]."""
        return torch.tensor(self.starts[1:], dtype=torch.int64, device=self.device) - 1

    @property
    def is_padded(self) -> bool:
        return self.n_rows != self.size * self.n_columns

    @cached_property
    def cells_T(self) -> torch.Tensor:
        """Index of each row in the flattened padded batch, int64 [T]."""
        spans = [
            torch.arange(
                b * self.n_columns + offset,
                b * self.n_columns + offset + length,
                device=self.device,
            )
            for b, (offset, length) in enumerate(zip(self.offsets, self.lengths, strict=True))
        ]
        return torch.cat(spans)

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """Ragged [T, ...] to padded [B, P, ...]; zeros on padding, a view where there is none."""
        shape = (self.size, self.n_columns, *x.shape[1:])
        if not self.is_padded:
            return x.reshape(shape)
        out = x.new_zeros(self.size * self.n_columns, *x.shape[1:])
        return out.index_copy(0, self.cells_T, x).view(shape)

    def strip(self, x_BP: torch.Tensor) -> torch.Tensor:
        """Padded [B, P, ...] to ragged [T, ...]; a view where nothing is padded."""
        x = x_BP.flatten(0, 1)
        return x[self.cells_T] if self.is_padded else x

    def pad_keys(
        self, x_THK: torch.Tensor, fill: float | bool, columns: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Ragged scores [rows, H, K] to [B, H, P, C]; `fill` outside each sequence.

        A sequence's key j stands in column `key_offsets + j`. `columns` keeps only these columns of
        P, in this order; x_THK then holds the rows `rows_in(columns)`.
        """
        if columns is None and not self.is_padded and self.n_key_columns == min(self.totals):
            return x_THK.reshape(self.size, self.n_columns, *x_THK.shape[1:]).transpose(1, 2)
        wanted = range(self.n_columns) if columns is None else columns
        out = x_THK.new_full((self.size, len(wanted), x_THK.shape[1], self.n_key_columns), fill)
        row_of = {row: i for i, row in enumerate(self.rows_in(wanted))}
        for b, (key0, total) in enumerate(zip(self.key_offsets, self.totals, strict=True)):
            cells = [(i, self._row(b, column)) for i, column in enumerate(wanted)]
            to = [i for i, row in cells if row is not None]
            source = [row_of[row] for _, row in cells if row is not None]
            out[b, to, :, key0 : key0 + total] = x_THK[source, :, :total]
        return out.transpose(1, 2)

    def strip_keys(self, x_BHPC: torch.Tensor, fill: float) -> torch.Tensor:
        """Padded scores [B, H, P, C] to ragged [T, H, K]; `fill` beyond each sequence's end."""
        n_heads = x_BHPC.shape[1]
        out = x_BHPC.new_full((self.n_rows, n_heads, self.n_keys), fill)
        for b in range(self.size):
            rows = slice(self.starts[b], self.starts[b + 1])
            columns = slice(self.offsets[b], self.offsets[b] + self.lengths[b])
            keys = slice(self.key_offsets[b], self.key_offsets[b] + self.totals[b])
            out[rows, :, : self.totals[b]] = x_BHPC[b, :, columns, keys].transpose(0, 1)
        return out

    def rows_in(self, columns: Sequence[int]) -> list[int]:
        """The ragged rows that stand in these columns of the padded batch, ascending."""
        cells = (self._row(b, column) for b in range(self.size) for column in set(columns))
        return sorted(row for row in cells if row is not None)

    def visible_THK(self, window: int | None) -> torch.Tensor:
        """Returns whether each row attends to each key, bool [T, 1, K]."""
        return visible_keys(self.positions_T, self.n_keys, window)

    def _row(self, b: int, column: int) -> int | None:
        """The ragged row in a cell of the padded batch; None on padding."""
        at = column - self.offsets[b]
        return self.starts[b] + at if 0 <= at < self.lengths[b] else None


def visible_keys(positions_T: torch.Tensor, n_keys: int, window: int | None) -> torch.Tensor:
    """Returns whether queries at these positions attend to keys 0 .. n_keys - 1, bool [T, 1, K]."""
    key_K = torch.arange(n_keys, device=positions_T.device)
    t_T11 = positions_T[:, None, None]
    visible = key_K <= t_T11
    return visible if window is None else visible & (key_K > t_T11 - window)


def _read_mask(mask_BP: torch.Tensor, tokens_BP: torch.Tensor) -> tuple[list[int], list[int]]:
    """Lengths and left offsets of a 0/1 mask. Raises as `RaggedBatch.from_tokens` says."""
    if not isinstance(mask_BP, torch.Tensor):
        raise TypeError(f"attention_mask: expected a tensor, got {type(mask_BP).__name__}")
    if mask_BP.shape != tokens_BP.shape:
        raise ValueError(
            f"attention_mask: shape {list(mask_BP.shape)} does not match tokens, "
            f"{list(tokens_BP.shape)}; it covers the new tokens only"
        )
    mask_BP = mask_BP.to(tokens_BP.device)
    real_BP = mask_BP != 0
    if not bool(((mask_BP == 1) == real_BP).all()):
        raise ValueError("attention_mask: expected only 0 and 1")
    lengths = real_BP.sum(1)
    offsets = real_BP.to(torch.uint8).argmax(1)
    if (empty := (lengths == 0).nonzero()).numel():
        raise ValueError(f"attention_mask: row {int(empty[0])} is all padding")
    column = torch.arange(mask_BP.shape[1], device=mask_BP.device)
    solid = (column >= offsets[:, None]) & (column < (offsets + lengths)[:, None])
    if (holes := (solid != real_BP).any(1).nonzero()).numel():
        raise ValueError(
            f"attention_mask: row {int(holes[0])} has a hole between real tokens; "
            "padding may stand on the left or on the right only"
        )
    return lengths.tolist(), offsets.tolist()
