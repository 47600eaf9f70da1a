"""Whether a decision can have flipped: its margin against the distance of two runs.

After every token a conversation is flagged where its running score exceeds the threshold. Run b
decides as run a does if run a's margin |s_a - threshold| exceeds |s_b - s_a|, for which
|e_b - e_a| + r_a + r_b stands: e are the scores of both runs' activations in exact arithmetic, r
what rounding allows any sound arithmetic to add. That holds for every order of summation in run b,
on these activations. A bound for activations that were not observed would be vacuous after fifteen
blocks; none is claimed.

Shapes: N tokens of all conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..probe import Probe
from ..rows import TokenRows
from .exact import enclosed_scores
from .folds import Array

Flags = npt.NDArray[np.bool_]

OBSERVED = "run b's activations at the probe's hooks are the observed ones"
RECORDED = "run b's scores are the recorded ones"
OWN = "run {}'s scores keep the probe's numerics, in any order of summation"


@dataclass(frozen=True)
class Decisions:
    """Run a's decision after each token, and what is certain of run b's; kind "measured".

    Attributes:
        premises: What the certificate rests on.
        scores_a, scores_b: fp64 [N], of the runs themselves.
        above_a, above_b: Whether they exceed the threshold.
        margin: Run a's distance from the threshold, fp64 [N].
        bound: What the distance of the runs can come to, fp64 [N].
        kept: Whether both runs' scores lie where their activations and rounding allow.
        utilisation: The largest share of such a bound that rounding took.
    """

    premises: tuple[str, ...]
    scores_a: Array
    scores_b: Array
    threshold: float
    bound: Array
    kept: Flags
    utilisation: float

    @property
    def above_a(self) -> Flags:
        return self.scores_a > self.threshold

    @property
    def above_b(self) -> Flags:
        return self.scores_b > self.threshold

    @property
    def margin(self) -> Array:
        return np.abs(self.scores_a - self.threshold)

    @property
    def flipped(self) -> Flags:
        return np.asarray(self.above_a != self.above_b)

    @property
    def certified(self) -> Flags:
        """Decisions that cannot have flipped; all others are undecided."""
        return self.certified_by(1.0)

    def certified_by(self, share: float) -> Flags:
        """Returns what would be certified if the bound were only this share of itself: below 1 that
        is no certificate, but a control, which must err."""
        return self.kept & (self.margin > share * self.bound)


def certify_rows(
    probe: Probe,
    rows_a: TokenRows,
    rows_b: TokenRows,
    *,
    scores_b: torch.Tensor | None = None,
) -> Decisions:
    """Certifies decisions of a run whose activations are `rows_a` against one with `rows_b`.

    Args:
        scores_b: fp32 [N], running scores that run b computed itself, in whatever way; where one is
            not within rounding of what its activations give, the decision is undecided. None: the
            probe's own kernels compute them.

    Raises ValueError for rows of other tokens.
    """
    if not torch.equal(rows_a.starts, rows_b.starts):
        raise ValueError("two runs of other tokens: conversations have other lengths")
    a, b = enclosed_scores(probe, rows_a), enclosed_scores(probe, rows_b)
    own_a = running(probe, rows_a)
    own_b = running(probe, rows_b) if scores_b is None else scores_b
    if own_b.shape != own_a.shape:
        raise ValueError(f"{list(own_b.shape)} scores of run b for {list(own_a.shape)} tokens")
    shares = np.stack([a.shares(own_a), b.shares(own_b)])
    return Decisions(
        (OBSERVED, OWN.format("a"), OWN.format("b")),
        own_a.double().numpy(),
        own_b.double().numpy(),
        probe.threshold_,
        np.abs(b.scores - a.scores) + a.bounds + b.bounds,
        np.asarray((shares <= 1).all(0)),
        float(shares.max(initial=0)),
    )


def certify_scores(probe: Probe, rows_a: TokenRows, recorded: Sequence[torch.Tensor]) -> Decisions:
    """Certifies decisions against running scores that were recorded elsewhere, fp32 [T] of each
    conversation. Raises ValueError for scores of other tokens."""
    a, own_a = enclosed_scores(probe, rows_a), running(probe, rows_a)
    own_b = torch.cat([torch.empty(0, dtype=torch.float32, device="cpu"), *recorded])
    lengths = rows_a.without_first(probe.skip_first).starts.diff().tolist()
    if [len(r) for r in recorded] != lengths:
        raise ValueError("the recorded scores are of other tokens: conversations differ in length")
    shares = a.shares(own_a)
    return Decisions(
        (RECORDED, OWN.format("a")),
        own_a.double().numpy(),
        own_b.double().numpy(),
        probe.threshold_,
        np.abs(own_b.double().numpy() - a.scores) + a.bounds,
        (shares <= 1) & np.isfinite(own_b.numpy()),
        float(shares.max(initial=0)),
    )


def running(probe: Probe, rows: TokenRows) -> torch.Tensor:
    """Returns the probe's scores after each token that it does not skip, fp32 [N]."""
    grid = probe.running_scores(rows).flatten()
    return grid[rows.without_first(probe.skip_first).columns]
