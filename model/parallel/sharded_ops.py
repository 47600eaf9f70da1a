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
from typing import TYPE_CHECKING, Any

import torch

from ..ops.native import NativeOps
from ..ops.native_huggingface import NativeHuggingFaceOps
from ..ops.packed import PackedWeight
from ..ops.policy import Policy
from ..weights.checkpoint import StoredMatrix
from .agreement import raw_bytes
from .column_shards import ColumnShards
from .group import Group

if TYPE_CHECKING:
    from ..block import MLP, Block
    from ..run import Run


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

    taps: frozenset[str] = frozenset()

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
        owner_T = torch.bucketize(tokens_T, torch.tensor(bounds[1:]), right=True)
        rows = [(owner_T == r).nonzero().flatten() for r in range(self.group.size)]
        own_Td = torch.zeros(max(map(len, rows)), weight.own.k, dtype=self.policy.residual)
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
        own_Tr = self.own_columns(x, weight, bias, out_dtype=out_dtype)
        return self._gather([own_Tr], [weight.shards])[0]

    def own_columns(
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
            return torch.empty(len(x), 0, dtype=out_dtype or self.policy.activation)
        return super().linear(x, weight.own, bias, out_dtype=out_dtype)

    def run_blocks(
        self, blocks: Sequence[Block], start: int, stop: int, resid_Td: torch.Tensor, run: Run
    ) -> torch.Tensor:
        for i in range(start, stop):
            resid_Td = self._run_block(blocks[i], resid_Td, run)
        return resid_Td

    def _run_block(self, block: Block, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        """An unwatched block in four exchanges: q with k and v, o, the gated product, down."""
        attn, mlp = block.attn, block.mlp
        x_Td = block.ln1(resid_Td, run)
        qkv = self._gather(
            [self.own_columns(x_Td, p.weight, p.bias) for p in (attn.q, attn.k, attn.v)],
            [p.weight.shards for p in (attn.q, attn.k, attn.v)],
        )
        q_THh, k_TGh, v_TGh = (y.view(len(y), -1, attn.config.d_head) for y in qkv)
        z_THh = attn.mix(q_THh, k_TGh, v_TGh, run)
        attn_out = attn.o(z_THh.flatten(1), run)
        if block.ln1_post is not None:
            attn_out = block.ln1_post(attn_out, run)
        resid_Td = self.add(resid_Td, attn_out)
        mlp_out = mlp.down(self._gated(mlp, block.ln2(resid_Td, run)), run)
        if block.ln2_post is not None:
            mlp_out = block.ln2_post(mlp_out, run)
        return self.add(resid_Td, mlp_out)

    def _gated(self, mlp: MLP, x_Td: torch.Tensor) -> torch.Tensor:
        """act(gate) * up [T, m]: a rank has the same columns of both, so it takes their product."""
        gate_Tr, up_Tr = (self.own_columns(x_Td, p.weight, p.bias) for p in (mlp.gate, mlp.up))
        post_Tr = self.gated_act(mlp.act_fn, gate_Tr, up_Tr)
        return self._gather([post_Tr], [mlp.gate.weight.shards])[0]

    def _gather(
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
    """The same under hf_bf16: each rank rounds its own columns as one rank alone would."""
