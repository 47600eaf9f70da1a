"""The distance between what two pools make of the same text.

Tensor names: P positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ....model.transformer import HookedTransformer
from ....precision.statistics import Estimate, FlipSummary, PairedRuns, clustered_mean


@dataclass(frozen=True)
class PositionRange:
    """The loss of the next token where it has so many tokens before it.

    Attributes:
        first, last: Positions, both included.
        right, wrong: Mean loss in nats in the right and in the wrong pool.
        change: Of the loss, wrong less right, clustered by text.
    """

    first: int
    last: int
    right: float
    wrong: float
    change: Estimate


@dataclass(frozen=True)
class Movement:
    """The distance by which answers move.

    Attributes:
        tokens: KL, flips, and how often the next token is the most probable one, over all
            positions of all texts.
        by_position: The loss, in ranges that double.
        accuracy: Share of next tokens that the right pool has as the most probable one.
    """

    tokens: FlipSummary
    by_position: tuple[PositionRange, ...]
    accuracy: float


@torch.no_grad()
def movement(
    right: HookedTransformer,
    wrong: HookedTransformer,
    tokens_NP: torch.Tensor,
    progress: Callable[[int, int], None] | None = None,
) -> Movement:
    """Runs both models on the same texts, int64 [N, P]. Raises ValueError for fewer than two."""
    runs, losses, hits = PairedRuns(), [], 0
    for i, tokens_P in enumerate(tokens_NP):
        a_PV, b_PV = (model(tokens_P)[0, :-1].float() for model in (right, wrong))
        targets_P = tokens_P[1:]
        runs.add(i, a_PV, b_PV, targets_P)
        hits += int((a_PV.argmax(-1) == targets_P).sum())
        losses.append(torch.stack([_loss(a_PV, targets_P), _loss(b_PV, targets_P)]))
        if progress is not None:
            progress(i + 1, len(tokens_NP))
    losses_N2P = torch.stack(losses)
    n_tokens = losses_N2P.shape[0] * losses_N2P.shape[2]
    return Movement(runs.summary(), _by_position(losses_N2P), hits / n_tokens)


def _loss(logits_PV: torch.Tensor, targets_P: torch.Tensor) -> torch.Tensor:
    """fp64 [P]."""
    log_p_PV = torch.log_softmax(logits_PV.double(), dim=-1)
    return -log_p_PV.gather(1, targets_P[:, None])[:, 0]


def _by_position(losses_N2P: torch.Tensor) -> tuple[PositionRange, ...]:
    found: list[PositionRange] = []
    first, n_positions = 0, losses_N2P.shape[2]
    while first < n_positions:
        stop = min(max(1, 2 * first), n_positions)
        part = losses_N2P[:, :, first:stop]
        right, wrong = part.mean(dim=(0, 2)).tolist()
        found.append(PositionRange(first, stop - 1, right, wrong, _change(part)))
        first = stop
    return tuple(found)


def _change(losses_N2P: torch.Tensor) -> Estimate:
    change_NP = losses_N2P[:, 1] - losses_N2P[:, 0]
    texts: Sequence[int] = (
        torch.arange(len(change_NP), device="cpu").repeat_interleave(change_NP.shape[1]).tolist()
    )
    return clustered_mean(change_NP.flatten().tolist(), texts)
