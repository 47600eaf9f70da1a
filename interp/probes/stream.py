"""Scores while tokens come."""

from __future__ import annotations

import math
from typing import Protocol

import torch

from ..dictionaries import Features
from .fold import ScoreFold
from .rows import TokenRows, token_rows


class Streamed(Protocol):
    """The part of a probe that a stream needs."""

    skip_first: int
    coef_: torch.Tensor

    def head_values(self, tokens: TokenRows) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns values and attention logits, fp32 [N, H]."""

    def new_fold(self, batch: int) -> ScoreFold:
        """Returns the fold of `batch` conversations."""


class ScoreStream:
    """The running scores of B conversations whose tokens come step by step.

    Attributes:
        scores: fp32 [B], each conversation's score so far; NaN before its first scored token.
    """

    def __init__(self, probe: Streamed, batch: int) -> None:
        self.probe = probe
        self.scores = torch.full((batch,), math.nan, dtype=torch.float32, device="cpu")
        self._fold = probe.new_fold(batch)
        self._skipped = torch.zeros(batch, dtype=torch.int64, device="cpu")

    def push(self, x: torch.Tensor | Features, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Takes the next tokens, [B, S, D] or one each, [B, D]; returns the score after each, fp32
        [B, S], NaN at padding and skipped tokens. The bits are those of `running_scores`.

        Raises ValueError for another batch, another width, or NaN.
        """
        one_each = len(x.shape) == 2
        if mask is not None and one_each:
            mask = mask.reshape(-1, 1)
        tokens = token_rows(x, mask)
        if tokens.n_conversations != len(self.scores):
            raise ValueError(f"{tokens.n_conversations} rows in a stream of {len(self.scores)}")
        if tokens.width != self.probe.coef_.shape[1]:
            raise ValueError(f"rows of {tokens.width} values, not {self.probe.coef_.shape[1]}")
        left = self.probe.skip_first - self._skipped
        self._skipped += torch.minimum(left, tokens.starts.diff())
        tokens = tokens.without_first(left)
        values, logits = self.probe.head_values(tokens)
        after = self._fold.push(values, tokens.starts, logits)
        some = tokens.starts.diff() > 0
        self.scores[some] = after[tokens.starts[1:][some] - 1]
        return tokens.on_grid(after)
