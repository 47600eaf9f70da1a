"""Scores of conversations, folded from those of their tokens by the compiled kernel.

Shapes: B conversations, N tokens of all of them, H heads.
"""

from __future__ import annotations

import torch

from ... import _core
from ...model.ops.kernels import empty
from .aggregate import Aggregate


class ScoreFold:
    """The scores of B conversations, as far as their tokens have come.

    Tokens handed over in one call or in many give the same bits (docs/numerics.md, Probes).

    Attributes:
        seen: int64 [B], the tokens that each conversation has had.
    """

    def __init__(self, aggregate: Aggregate, n_heads: int, intercept: float, batch: int) -> None:
        self.aggregate = aggregate
        self.seen = torch.zeros(batch, dtype=torch.int64, device="cpu")
        self._n_heads = n_heads
        self._intercept = intercept
        floats = _core.fold_state_floats(aggregate.code, aggregate.window)
        self._state = torch.zeros(batch, n_heads * floats, dtype=torch.float32, device="cpu")

    def push(
        self, values: torch.Tensor, starts: torch.Tensor, logits: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Takes the next tokens; returns their conversation's score after each, fp32 [N].

        Args:
            values: fp32 [N, H], conversation after conversation.
            starts: int64 [B + 1]: conversation b has tokens starts[b] to starts[b + 1].
            logits: fp32 [N, H], where the aggregate is "softmax".

        Raises ValueError for shapes that do not fit.
        """
        values, starts = values.detach().contiguous(), starts.contiguous()
        n = len(values)
        if (logits is None) == (self.aggregate.kind == "softmax"):
            raise ValueError("fold: softmax takes logits, and nothing else does")
        if values.shape != (n, self._n_heads) or len(starts) != len(self.seen) + 1:
            raise ValueError(
                f"fold: values {list(values.shape)} and {len(starts)} starts; expected "
                f"[{n}, {self._n_heads}] and {len(self.seen) + 1}"
            )
        if starts[0] != 0 or starts[-1] != n or bool((starts.diff() < 0).any()):
            raise ValueError(f"fold: starts do not ascend from 0 to {n}")
        if logits is not None:
            logits = logits.detach().contiguous()
            if logits.shape != values.shape:
                raise ValueError(f"fold: logits {list(logits.shape)} beside {list(values.shape)}")
        out = empty((n,))
        _core.fold_scores(
            self.aggregate.code, self.aggregate.window, self.aggregate.weight, values,
            logits, starts, len(self.seen),
            self._n_heads, self._intercept, self.seen, self._state,
            out,
        )  # fmt: skip
        return out
