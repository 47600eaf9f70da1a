"""From the last norm to log-probabilities, some rows at a time: a batch's logits are never whole.

Tensor names: T ragged rows, S rows whose next token is scored, C rows of a chunk, B sequences,
V vocabulary, d d_model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import Function

from ..batch import RaggedBatch
from ..ops import kernels
from ..ops.packed import PackedWeight
from ..ops.weight_gradients import GradientSum
from . import kernels as gradient_kernels
from . import weight_kernels
from .first_order import first_order

Tensor = torch.Tensor

LEAF = 256
"""Positions of a leaf of a weight's gradient, and the least rows of a chunk but the last."""


@dataclass(frozen=True, eq=False)
class Head:
    """The output layer.

    Attributes:
        cap: Of the logits, None without one.
        sums: Where its gradient goes, None where it is not trained.
    """

    weight: PackedWeight
    cap: float | None
    sums: GradientSum | None


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some of the scored rows.

    Attributes:
        part: Which of the scored rows.
        rows_C: Their ragged rows, int64.
        starts: Where leaves of the weight's gradient begin among them, int64. A leaf whose other
            rows are left out has the sum of the whole one, to which those add zeros.
    """

    part: slice
    rows_C: Tensor
    starts: Tensor


def chunks(rows_S: Tensor, batch: RaggedBatch) -> Iterator[Chunk]:
    """Cuts ascending rows between leaves, 256 or more at a time."""
    positions_S = batch.positions_T[rows_S]
    owners_S = torch.bucketize(rows_S, batch.starts_B1[1:], right=True)
    new_S = torch.ones(len(rows_S), dtype=torch.bool, device="cpu")
    new_S[1:] = owners_S[1:] != owners_S[:-1]
    new_S[1:] |= positions_S[1:] // LEAF != positions_S[:-1] // LEAF
    bounds = [*new_S.nonzero().flatten().tolist(), len(rows_S)]
    first = 0
    for i, bound in enumerate(bounds[1:], start=1):
        begin = bounds[first]
        if bound - begin < LEAF and i < len(bounds) - 1:
            continue
        starts = torch.tensor(bounds[first : i + 1], device="cpu") - begin
        yield Chunk(slice(begin, bound), rows_S[begin:bound], starts)
        first = i


def head_logits(x_Cd: Tensor, head: Head) -> Tensor:
    """fp32 [C, V], capped where there is a cap: what the sampler sees."""
    weight = head.weight
    logits_CV = kernels.linear(x_Cd, weight.data, weight.format, weight.n, None, torch.float32)
    return logits_CV if head.cap is None else kernels.soft_cap(logits_CV, head.cap)


class HeadLogprob(Function):
    """ln p of the tokens `ids_S` that follow `rows_S`, fp32 [S]; logits are computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x_Td: Tensor,
        anchor: Tensor,
        rows_S: Tensor,
        ids_S: Tensor,
        head: Head,
        batch: RaggedBatch,
        temperature: float,
    ) -> Tensor:
        logprob_S = kernels.empty((len(rows_S),))
        for chunk in chunks(rows_S, batch):
            logits_CV = head_logits(x_Td[chunk.rows_C], head)
            found = weight_kernels.token_logprob(logits_CV, ids_S[chunk.part], temperature)
            logprob_S[chunk.part] = found[0]
        ctx.save_for_backward(x_Td, rows_S, ids_S)
        ctx.head, ctx.batch, ctx.temperature = head, batch, temperature
        return logprob_S

    @staticmethod
    @first_order
    def backward(ctx: Any, dlogprob_S: Tensor) -> tuple[Tensor | None, ...]:
        x_Td, rows_S, ids_S = ctx.saved_tensors
        head: Head = ctx.head
        dx_Td = torch.zeros_like(x_Td)
        turned = head.weight.transposed
        for chunk in chunks(rows_S, ctx.batch):
            x_Cd = x_Td[chunk.rows_C]
            logits_CV, ids_C = head_logits(x_Cd, head), ids_S[chunk.part]
            _, *saved = weight_kernels.token_logprob(logits_CV, ids_C, ctx.temperature)
            dlogits_CV = weight_kernels.token_logprob_backward(
                dlogprob_S[chunk.part], logits_CV, ids_C, ctx.temperature, *saved
            )
            if head.cap is not None:
                dlogits_CV = gradient_kernels.soft_cap_backward(dlogits_CV, logits_CV, head.cap)
            if head.sums is not None:
                weight_kernels.add_linear_weight_grad(
                    head.sums.begun(), dlogits_CV, x_Cd, chunk.starts
                )
            dx_Td[chunk.rows_C] = kernels.linear(
                dlogits_CV, turned.data, turned.format, turned.n, None, x_Td.dtype
            )
        return dx_Td, None, None, None, None, None, None
