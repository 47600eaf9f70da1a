"""Scores of the tokens of a pass, by one probe or by all linear ones of a hook at once.

Shapes: B sequences, b rows of a pass, P its columns, N real tokens of it, K probes, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ... import _core
from ...model.generation.monitors import WatchedPass
from ...model.ops.kernels import empty
from ...model.ops.packed import pack
from ...model.weights.checkpoint import Format, StoredMatrix
from ..dictionaries import Dictionary
from ..probes import Probe


@dataclass(frozen=True)
class ScoredPass:
    """The scores that one scorer gave the tokens of a pass.

    Attributes:
        monitors: The number of each of K monitors.
        scores: fp32 [N, K], token after token of row after row; NaN where there is none.
        is_above: Whether one of them exceeds its threshold.
    """

    monitors: Sequence[int]
    scores: torch.Tensor
    is_above: bool


class Scorer(Protocol):
    """Scores tokens as they come."""

    def push(self, seen: WatchedPass, rows_N: torch.Tensor) -> ScoredPass:
        """Returns the scores of a pass's real tokens, whose sequences are `rows_N`.

        Raises ValueError for activations that are no finite numbers.
        """


class StreamScorer:
    """One probe of any kind."""

    def __init__(
        self, index: int, probe: Probe, features: Dictionary | None, n_rows: int, threshold: float
    ) -> None:
        self._index, self._probe, self._features = index, probe, features
        self._stream = probe.stream(n_rows)
        self._n_rows, self._threshold = n_rows, threshold

    def push(self, seen: WatchedPass, rows_N: torch.Tensor) -> ScoredPass:
        """Works like `Scorer.push`."""
        parts = [seen.found[name].flatten(2).float() for name in self._probe.hook_names]
        x_bPD = torch.cat(parts, -1)
        x_BPD = x_bPD.new_zeros(self._n_rows, *x_bPD.shape[1:])
        real_BP = torch.zeros(self._n_rows, x_bPD.shape[1], dtype=torch.bool, device="cpu")
        x_BPD[seen.rows], real_BP[seen.rows] = x_bPD, seen.real
        x_BPD[~real_BP] = 0
        given = x_BPD if self._features is None else self._features.encode_sparse(x_BPD)
        scores_N1 = self._stream.push(given, real_BP)[seen.rows][seen.real][:, None]
        return ScoredPass([self._index], scores_N1, bool((scores_N1 > self._threshold).any()))


class LinearScorers:
    """Linear probes of one hook: one call of the compiled kernel for all."""

    def __init__(
        self,
        indices: Sequence[int],
        hook_name: str,
        probes: Sequence[Probe],
        thresholds: Sequence[float],
        n_rows: int,
    ) -> None:
        self._indices, self._hook = indices, hook_name
        coef_KD = torch.cat([probe.coef_ for probe in probes]).contiguous()
        k, self._width = coef_KD.shape
        self._panels = pack(StoredMatrix(Format.F32, k, self._width, coef_KD)).data
        self._bias_K = torch.cat([probe.intercept_ for probe in probes]).contiguous()
        rules = [(p.aggregate.code, p.aggregate.window, p.skip_first) for p in probes]
        self._rules_3K = _tensor(rules, torch.int64).T.contiguous()
        self._weights_K = _tensor([p.aggregate.weight for p in probes], torch.float32)
        self._thresholds_K = _tensor(thresholds, torch.float64)
        self._floats = max(
            _core.fold_state_floats(p.aggregate.code, p.aggregate.window) for p in probes
        )
        self._seen_KB = torch.zeros(k, n_rows, dtype=torch.int64, device="cpu")
        self._taken_B = torch.zeros(n_rows, dtype=torch.int64, device="cpu")
        shape = k, n_rows, self._floats
        self._state = torch.zeros(shape, dtype=torch.float32, device="cpu")
        self._n_rows = n_rows

    def push(self, seen: WatchedPass, rows_N: torch.Tensor) -> ScoredPass:
        """Works like `Scorer.push`."""
        x = seen.found[self._hook]  # [b, P, ..., d]
        n, k = len(rows_N), len(self._indices)
        if n < x.shape[0] * x.shape[1]:
            x = x[seen.real]
        x_ND = x.reshape(n, -1).float()
        out_NK = empty((n, k))
        above = _core.score_tokens(
            x_ND, n, self._width, self._panels, k, self._bias_K, self._rules_3K, self._weights_K,
            self._thresholds_K, rows_N, self._n_rows, self._floats, self._seen_KB, self._taken_B,
            self._state, out_NK,
        )  # fmt: skip
        if above < 0:
            raise ValueError(f"{self._hook} holds NaN or infinity: there is nothing to score")
        return ScoredPass(self._indices, out_NK, above > 0)


def _tensor(values: Sequence[object], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device="cpu")


def is_score(score: float) -> bool:
    """Whether a token got a score."""
    return not math.isnan(score)
