"""Cross entropy and divergence from logits, in fp64.

Shapes: B sequences, P positions, V vocabulary, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..activations.sequences import Batch

_VALUES_AT_A_TIME = 1 << 22


def next_token_losses(logits_BPV: torch.Tensor, batch: Batch) -> list[float]:
    """Returns -log p of each token that follows another in its sequence."""
    losses: list[float] = []
    for row, tokens in _sequences(batch):
        targets = tokens[1:].to(logits_BPV.device)
        for at, stop in _spans(len(targets), logits_BPV.shape[-1]):
            log_p = logits_BPV[row, at:stop].double().log_softmax(-1)
            losses += (-log_p.gather(1, targets[at:stop, None])[:, 0]).tolist()
    return losses


def divergences(plain_BPV: torch.Tensor, other_BPV: torch.Tensor, batch: Batch) -> list[float]:
    """Returns KL(plain || other) at each real position."""
    found: list[float] = []
    for row, tokens in _sequences(batch):
        for at, stop in _spans(len(tokens), plain_BPV.shape[-1]):
            log_p = plain_BPV[row, at:stop].double().log_softmax(-1)
            log_q = other_BPV[row, at:stop].double().log_softmax(-1)
            found += (log_p.exp() * (log_p - log_q)).sum(-1).tolist()
    return found


def _sequences(batch: Batch) -> Iterator[tuple[int, torch.Tensor]]:
    for row, (tokens, mask) in enumerate(zip(batch.tokens, batch.mask, strict=True)):
        yield row, tokens[mask]


def _spans(n_rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Starts and ends of as many rows at a time as keep to the memory's bound."""
    step = max(1, _VALUES_AT_A_TIME // width)
    for at in range(0, n_rows, step):
        yield at, min(n_rows, at + step)
