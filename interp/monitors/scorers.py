"""Scores of the tokens of a pass, by one probe or by all linear ones of a hook at once.

Shapes: B sequences, b rows of a pass, P its columns, N tokens scored in it, K probes, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from ...model.generation.monitors import WatchedPass
from ...model.ops.kernels import linear
from ...model.ops.packed import pack
from ...model.weights.checkpoint import Format, StoredMatrix
from ..dictionaries import Dictionary
from ..probes import Probe


class Scorer(Protocol):
    """Scores tokens as they come."""

    def push(self, seen: WatchedPass) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields the number of each monitor and its scores, fp32 [b, P]; NaN where there is none.

        Raises ValueError for activations that are no finite numbers.
        """


class StreamScorer:
    """One probe of any kind."""

    def __init__(self, index: int, probe: Probe, features: Dictionary | None, n_rows: int) -> None:
        self._index, self._probe, self._features = index, probe, features
        self._stream = probe.stream(n_rows)
        self._n_rows = n_rows

    def push(self, seen: WatchedPass) -> Iterator[tuple[int, torch.Tensor]]:
        """Works like `Scorer.push`."""
        parts = [seen.found[name].flatten(2).float() for name in self._probe.hook_names]
        x_bPD = torch.cat(parts, -1)
        x_BPD = x_bPD.new_zeros(self._n_rows, *x_bPD.shape[1:])
        real_BP = torch.zeros(self._n_rows, x_bPD.shape[1], dtype=torch.bool)
        x_BPD[seen.rows], real_BP[seen.rows] = x_bPD, seen.real
        x_BPD[~real_BP] = 0
        rows = x_BPD if self._features is None else self._features.encode_sparse(x_BPD)
        yield self._index, self._stream.push(rows, real_BP)[seen.rows]


class LinearScorers:
    """Linear probes of one hook: one product for all, then a fold each."""

    def __init__(
        self, indices: Sequence[int], hook_name: str, probes: Sequence[Probe], n_rows: int
    ) -> None:
        self._indices, self._hook, self._probes = indices, hook_name, probes
        coef_KD = torch.cat([probe.coef_ for probe in probes]).contiguous()
        self._shape = coef_KD.shape
        n, width = coef_KD.shape
        self._weight = pack(StoredMatrix(Format.F32, n, width, coef_KD)).data
        self._bias_K = torch.cat([probe.intercept_ for probe in probes]).contiguous()
        self._folds = [probe.new_fold(n_rows) for probe in probes]
        self._seen_B = torch.zeros(n_rows, dtype=torch.int64)
        self._skips = any(probe.skip_first for probe in probes)

    def push(self, seen: WatchedPass) -> Iterator[tuple[int, torch.Tensor]]:
        """Works like `Scorer.push`."""
        x_bPD = seen.found[self._hook].flatten(2)
        x_ND = x_bPD[seen.real].float()
        values_NK = linear(
            x_ND, self._weight, Format.F32, self._shape[0], self._bias_K, torch.float32
        )
        if not math.isfinite(float(values_NK.sum())):
            raise ValueError(f"{self._hook} holds NaN or infinity: there is nothing to score")
        counts_B = torch.zeros_like(self._seen_B)
        counts_B[seen.rows] = seen.real.sum(1)
        for k, (index, probe) in enumerate(zip(self._indices, self._probes, strict=True)):
            kept_bP = self._kept(seen, probe.skip_first)
            values_N1 = values_NK[:, k : k + 1]
            counts = counts_B
            if probe.skip_first and kept_bP is not seen.real:
                values_N1 = values_N1[kept_bP[seen.real]]
                counts = torch.zeros_like(counts_B)
                counts[seen.rows] = kept_bP.sum(1)
            starts = torch.zeros(len(counts) + 1, dtype=torch.int64)
            torch.cumsum(counts, 0, out=starts[1:])
            scores_bP = torch.full(seen.real.shape, math.nan)
            scores_bP[kept_bP] = self._folds[k].push(values_N1, starts)
            yield index, scores_bP
        self._seen_B += counts_B

    def _kept(self, seen: WatchedPass, skip_first: int) -> torch.Tensor:
        """The tokens of a pass that a probe scores."""
        before_b = self._seen_B[seen.rows]
        if skip_first == 0 or int(before_b.min()) >= skip_first:
            return seen.real
        position_bP = before_b[:, None] + seen.real.cumsum(1) - 1
        return seen.real & (position_bP >= skip_first)
