"""Two runs over the same tokens: which predictions change, how often, how far apart.

"Flips" as in Dutta et al., "Accuracy is Not All You Need" (arXiv:2407.09141): answers that change,
in either direction, which a difference of accuracies hides; with KL beside them.

Tensor names: T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch

from .binomial import Interval, binomial_at_most, clopper_pearson
from .clustered import Estimate, clustered_mean, clustered_proportion
from .kl import kl_divergence


@dataclass(frozen=True)
class FlipSummary:
    """The changes from run a to run b.

    Attributes:
        flips: Positions whose argmax differs.
        interval: Of the rate, exact (Clopper-Pearson), as if positions were independent.
        by_prompt: The rate with the interval that allows for prompts (Korn-Graubard).
        kl: Mean KL(a || b) in nats with its clustered interval (Miller).
        lost, gained: Flips away from the target token and onto it; None without targets.
        p_value: Exact two-sided McNemar test that losses and gains are equally likely, None
            without targets. It takes positions as independent.
    """

    positions: int
    prompts: int
    flips: int
    interval: Interval
    by_prompt: Estimate
    kl: Estimate
    lost: int | None
    gained: int | None
    p_value: float | None


@dataclass
class PairedRuns:
    """Collects two runs piece by piece, so that no more logits need be held than one piece's."""

    _prompts: list[Hashable] = field(default_factory=list)
    _flipped: list[bool] = field(default_factory=list)
    _kl: list[float] = field(default_factory=list)
    _outcomes: list[tuple[bool, bool]] = field(default_factory=list)

    def add(
        self,
        prompt: Hashable,
        logits_a_TV: torch.Tensor,
        logits_b_TV: torch.Tensor,
        targets_T: torch.Tensor | None = None,
    ) -> None:
        """Adds positions of one prompt; `targets_T` are the right tokens, for all pieces or none.

        Raises ValueError for shapes that differ (other vocabularies), for non-finite logits, and
        for targets given to some pieces only.
        """
        if logits_a_TV.ndim != 2 or logits_a_TV.shape != logits_b_TV.shape:
            raise ValueError(
                f"logits {tuple(logits_a_TV.shape)} and {tuple(logits_b_TV.shape)}: expected the "
                "same [positions, vocabulary]; models with other tokenizers cannot be paired"
            )
        kl_T = kl_divergence(logits_a_TV, logits_b_TV)
        a_T, b_T = logits_a_TV.argmax(-1), logits_b_TV.argmax(-1)
        if self._prompts and bool(self._outcomes) != (targets_T is not None):
            raise ValueError("targets: give them for every piece or for none")
        if targets_T is not None:
            if targets_T.shape != a_T.shape:
                raise ValueError(f"targets: {tuple(targets_T.shape)} for {len(a_T)} positions")
            right_T2 = torch.stack([a_T == targets_T, b_T == targets_T], dim=1)
            self._outcomes += [(a, b) for a, b in right_T2.tolist()]
        self._prompts += [prompt] * len(a_T)
        self._flipped += (a_T != b_T).tolist()
        self._kl += kl_T.tolist()

    def summary(self, confidence: float = 0.95) -> FlipSummary:
        """Raises ValueError for fewer than two prompts."""
        flips, n = sum(self._flipped), len(self._flipped)
        by_prompt = clustered_proportion(self._flipped, self._prompts, confidence)
        lost = gained = p_value = None
        if self._outcomes:
            lost = sum(a and not b for a, b in self._outcomes)
            gained = sum(b and not a for a, b in self._outcomes)
            p_value = mcnemar(lost, gained)
        return FlipSummary(
            positions=n,
            prompts=by_prompt.clusters,
            flips=flips,
            interval=clopper_pearson(flips, n, confidence),
            by_prompt=by_prompt,
            kl=clustered_mean(self._kl, self._prompts, confidence),
            lost=lost,
            gained=gained,
            p_value=p_value,
        )


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p-value that `lost` and `gained` are equally likely (McNemar, 1947)."""
    if min(lost, gained) < 0:
        raise ValueError(f"mcnemar: {lost} lost, {gained} gained")
    return min(1.0, 2 * binomial_at_most(min(lost, gained), lost + gained, 0.5))
