"""Scores of the tokens of a pass, by one probe or by all linear ones of a hook at once.

Shapes: B sequences, b rows of a pass, P its columns, N real tokens of it, K probes, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from ... import _core
from ...model.generation.monitors import WatchedPass
from ...model.ops.kernels import empty
from ...model.ops.packed import pack
from ...model.weights.checkpoint import Format, StoredMatrix
from ..dictionaries import Dictionary
from ..probes import Probe


class ScoredPass(NamedTuple):
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
    """Linear probes of activations: one call of the compiled kernel a pass, for all hooks."""

    def __init__(
        self,
        probes: Mapping[int, Probe],
        thresholds: Sequence[float],
        n_rows: int,
    ) -> None:
        by_hook: dict[str, list[int]] = {}
        for index, probe in probes.items():
            by_hook.setdefault(probe.hook_name, []).append(index)
        self._hooks = list(by_hook)
        self._indices = [index for indices in by_hook.values() for index in indices]
        self._core = _core.TokenScorer(n_rows)
        for indices in by_hook.values():
            self._add([probes[i] for i in indices], [thresholds[i] for i in indices])

    def _add(self, probes: Sequence[Probe], thresholds: Sequence[float]) -> None:
        coef_KD = torch.cat([probe.coef_ for probe in probes]).contiguous()
        k, width = coef_KD.shape
        rules = [(p.aggregate.code, p.aggregate.window, p.skip_first) for p in probes]
        self._core.add(
            pack(StoredMatrix(Format.F32, k, width, coef_KD)).data,
            k,
            width,
            torch.cat([probe.intercept_ for probe in probes]).contiguous(),
            _tensor(rules, torch.int64).T.contiguous(),
            _tensor([p.aggregate.weight for p in probes], torch.float32),
            _tensor(thresholds, torch.float64),
        )

    def push(self, seen: WatchedPass, rows_N: torch.Tensor) -> ScoredPass:
        """Works like `Scorer.push`."""
        n = rows_N.shape[0]
        all_real = n == seen.real.numel()
        given = []
        for name in self._hooks:
            x = seen.found[name]  # [b, P, ..., d]
            if not all_real:
                x = x[seen.real]
            if x.dtype not in _READ:
                x = x.float()
            given.append(x.contiguous())
        out_NK = empty((n, len(self._indices)))
        found = self._core.push(given, n, rows_N, out_NK)
        if found < 0:
            hook = self._hooks[-1 - found]
            raise ValueError(f"{hook} holds NaN or infinity: there is nothing to score")
        return ScoredPass(self._indices, out_NK, found > 0)


_READ = (torch.float32, torch.bfloat16)
"""What the kernel widens to fp32 itself."""


def _tensor(values: Sequence[object], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device="cpu")


def is_score(score: float) -> bool:
    """Whether a token got a score."""
    return not math.isnan(score)
