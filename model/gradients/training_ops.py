"""The native operations of a model whose weights are trained.

Tensor names: T ragged rows, B sequences, d d_model.
"""

from __future__ import annotations

import torch

from ..batch import RaggedBatch
from ..ops.adapted import AdaptedMatrix
from ..ops.native import NativeOps
from ..ops.packed import PackedWeight
from ..ops.weight_gradients import GradientSum, WeightGradients
from . import trained_functions as functions
from .head import Head, HeadLogprob
from .ops import GradientOps, recorded


class TrainingOps(GradientOps):
    """`GradientOps` that sum the gradients of weights over one batch."""

    sums_gradients = True

    def __init__(self, plain: NativeOps, gradients: WeightGradients, batch: RaggedBatch) -> None:
        super().__init__(plain)
        self._gradients = gradients
        self._batch = batch
        self._anchor = torch.zeros((), dtype=torch.float32, device="cpu", requires_grad=True)

    def embed(self, tokens_T: torch.Tensor, weight: PackedWeight, scale: float) -> torch.Tensor:
        rows_Td = super().embed(tokens_T, weight, scale)
        table = self._gradients.table(weight)
        if table is None:
            return rows_Td
        sums = self._sums(len(tokens_T), table)
        return recorded(functions.TrainedEmbedding, self._anchor, tokens_T, rows_Td, scale, sums)

    def linear(
        self,
        x: torch.Tensor,
        weight: PackedWeight,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        if isinstance(weight, AdaptedMatrix):
            return self._adapted(x, weight, bias, out_dtype or self.policy.activation)
        found = self._gradients.linear(weight), self._gradients.vector(bias)
        if found == (None, None):
            return super().linear(x, weight, bias, out_dtype=out_dtype)
        out_dtype, sums = out_dtype or self.policy.activation, self._sums(len(x), *found)
        return recorded(functions.TrainedLinear, x, self._anchor, weight, bias, out_dtype, sums)

    def _adapted(
        self,
        x: torch.Tensor,
        weight: AdaptedMatrix,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype,
    ) -> torch.Tensor:
        whole_x, low_x = self.fork(x, 2)
        whole = super().linear(whole_x, weight.base, bias, out_dtype=torch.float32)
        low = self.linear(low_x, weight.a)
        change = self.linear(low, weight.b, out_dtype=torch.float32)
        total = self.add(whole, recorded(functions.Scaled, change, weight.scale))
        if out_dtype is torch.float32:
            return total
        return recorded(functions.Rounded, total, out_dtype)

    def norm_weight(self, normalized: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        found = self._gradients.vector(weight)
        if found is None:
            return super().norm_weight(normalized, weight)
        sums = self._sums(len(normalized), found)
        return recorded(
            functions.TrainedNormWeight,
            normalized,
            self._anchor,
            weight,
            self.policy.activation,
            sums,
        )

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        found = self._gradients.vector(weight)
        if found is None:
            return super().rms_norm(x, weight, eps)
        activation, sums = self.policy.activation, self._sums(len(x), found)
        return recorded(functions.TrainedRMSNorm, x, self._anchor, weight, eps, activation, sums)

    def head_logprob(
        self,
        x_Td: torch.Tensor,
        rows_S: torch.Tensor,
        ids_S: torch.Tensor,
        weight: PackedWeight,
        cap: float | None,
        temperature: float,
    ) -> torch.Tensor:
        head = Head(weight, cap, self._gradients.linear(weight))
        batch, anchor = self._batch, self._anchor
        return recorded(HeadLogprob, x_Td, anchor, rows_S, ids_S, head, batch, temperature)

    def _sums(
        self, n_rows: int, weight: GradientSum | None, bias: GradientSum | None = None
    ) -> functions.Sums:
        """The sums of an operation on all rows of the batch, or on the last of each sequence."""
        batch = self._batch
        if n_rows == batch.n_rows:
            return functions.Sums(batch.starts_B1, weight, bias)
        assert n_rows == batch.size, "an operation runs on every row or on each sequence's last"
        return functions.Sums(torch.arange(batch.size + 1, device="cpu"), weight, bias)
