"""Native operations whose matrices are spread over ranks by output columns.

Every dot product is computed whole, on one rank, in the canonical order; ranks exchange columns
and never add up partial products, so the number of ranks changes no bit.

Tensor names: T ragged rows, d d_model, H heads, G key/value heads, h d_head, m d_mlp, n outputs of
a linear, r those of one rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..ops.native import NativeOps
from ..ops.native_huggingface import NativeHuggingFaceOps
from ..ops.packed import PackedWeight
from ..ops.policy import Policy
from ..weights.checkpoint import StoredMatrix
from .agreement import raw_bytes
from .column_shards import ColumnShards
from .group import Group


@dataclass(frozen=True, eq=False)
class ShardedWeight:
    """A matrix of which this rank keeps its own output columns."""

    shards: ColumnShards
    start: int
    own: PackedWeight


class ShardedOps(NativeOps):
    """One rank's part of the operations. Activations are whole on every rank; linears and the
    embedding gather what the others own, everything else is computed by all alike.

    Attributes:
        digest: Of every tensor read, the parts of other ranks included.
    """

    is_recordable = False
    group: Group

    def __init__(self, policy: Policy, storage: str, group: Group) -> None:
        super().__init__(policy, storage)
        self.group = group
        self.digest = hashlib.blake2b()

    def weight(self, matrix: StoredMatrix) -> Any:
        self.digest.update(f"{matrix.format.name} {matrix.n} {matrix.k}".encode())
        self.digest.update(raw_bytes(matrix.data))
        shards = ColumnShards(matrix.n, self.group.size)
        start, stop = shards.bounds[self.group.rank : self.group.rank + 2]
        rows = StoredMatrix(matrix.format, stop - start, matrix.k, matrix.data[start:stop])
        return ShardedWeight(shards, start, super().weight(rows))

    def storage(self, weight: Any) -> tuple[str, int]:
        return super().storage(weight.own)

    def vector(self, vector: torch.Tensor) -> torch.Tensor:
        vector = super().vector(vector)
        self.digest.update(raw_bytes(vector))
        return vector

    def embed(self, tokens_T: torch.Tensor, weight: Any, scale: float) -> torch.Tensor:
        bounds, rank = weight.shards.bounds, self.group.rank
        owner_T = torch.bucketize(tokens_T, torch.tensor(bounds[1:], device="cpu"), right=True)
        rows = [(owner_T == r).nonzero().flatten() for r in range(self.group.size)]
        own_Td = torch.zeros(
            max(map(len, rows)), weight.own.k, dtype=self.policy.residual, device="cpu"
        )
        if len(rows[rank]):
            own_tokens = tokens_T[rows[rank]] - weight.start
            own_Td[: len(rows[rank])] = super().embed(own_tokens, weight.own, scale)
        x_Td = own_Td.new_empty(len(tokens_T), weight.own.k)
        for where, part in zip(rows, self.group.all_gather(own_Td), strict=True):
            x_Td[where] = part[: len(where)]  # selected, not added: -0 + 0 would lose a sign
        return x_Td

    def linear(
        self,
        x: torch.Tensor,
        weight: Any,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        own_Tr = self.linear_slice(x, weight, bias, out_dtype=out_dtype)
        return self.gather([own_Tr], [weight.shards])[0]

    def own_columns(self, weight: ShardedWeight) -> slice:
        return slice(weight.start, weight.start + weight.own.n)

    def linear_slice(
        self,
        x: torch.Tensor,
        weight: ShardedWeight,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """This rank's columns of `linear` [rows, r], which may be none."""
        if bias is not None:
            bias = bias[weight.start : weight.start + weight.own.n]
        if not weight.own.n:
            return torch.empty(len(x), 0, dtype=out_dtype or self.policy.activation, device="cpu")
        return super().linear(x, weight.own, bias, out_dtype=out_dtype)

    def gather(
        self, own: Sequence[torch.Tensor], shards: Sequence[ColumnShards]
    ) -> list[torch.Tensor]:
        """Whole linears [rows, n] from every rank's columns of them, in one exchange."""
        joined_Tr = torch.cat(tuple(own), dim=1)
        widths = [list(ranks) for ranks in zip(*(s.widths for s in shards), strict=True)]
        # The exchange takes equal shapes: ranks that own less send zeros which nobody reads.
        padded = joined_Tr.new_zeros(len(joined_Tr), max(map(sum, widths)))
        padded[:, : joined_Tr.shape[1]] = joined_Tr
        parts = [
            torch.split(part[:, : sum(rank)], rank, dim=1)
            for part, rank in zip(self.group.all_gather(padded), widths, strict=True)
        ]
        return [torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)]


class ShardedHuggingFaceOps(ShardedOps, NativeHuggingFaceOps):
    """`ShardedOps` for stepwise policies: a rank rounds its columns as one rank alone would."""
