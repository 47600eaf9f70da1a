"""The distance of two runs' logits on the same tokens, collected prompt by prompt.

Tensor names: P positions, R some of them, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ...precision.statistics import Estimate, clustered_mean, clustered_proportion
from ...precision.statistics.kl import kl_of_logprobs

_ROWS = 16
"""Positions at a time, so that a vocabulary of fp64 stays near the core."""


@dataclass
class Distance:
    """Sums over prompts of what sets a run apart from the reference, which is in fp64.

    Attributes:
        errors: By prompt, the root mean square of the difference of log-probabilities, over all
            positions and the whole vocabulary.
        token_errors: The difference of the next token's log-probability, by position.
        kl: KL(reference || run) in nats, by position.
        flips: Whether the best token differs, by position.
        certified: Positions where the reference's margin exceeds twice the largest difference of
            a log-probability, so that the best token cannot differ.
        broken: Certified positions where it does: must be 0.
        prompts: Of each position.
    """

    errors: list[float] = field(default_factory=list)
    token_errors: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    flips: list[bool] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    certified: int = 0
    broken: int = 0

    @torch.no_grad()
    def add(
        self,
        tokens_P: torch.Tensor,
        reference_PV: torch.Tensor,
        logits_PV: torch.Tensor,
        positions: Sequence[int] | None = None,
    ) -> None:
        """Adds a prompt.

        Args:
            reference_PV, logits_PV: At the given positions of the prompt, by default all.

        Raises ValueError for shapes that differ.
        """
        if reference_PV.shape != logits_PV.shape:
            raise ValueError(
                f"logits {tuple(logits_PV.shape)}, the reference has {tuple(reference_PV.shape)}"
            )
        places_P = torch.as_tensor(range(len(tokens_P)) if positions is None else positions)
        squares = 0.0
        for start in range(0, len(places_P), _ROWS):
            some = slice(start, start + _ROWS)
            squares += self._add_rows(tokens_P, places_P[some], reference_PV[some], logits_PV[some])
        self.errors.append(math.sqrt(squares / reference_PV.numel()))
        self.prompts += [len(self.errors)] * len(places_P)

    def _add_rows(
        self,
        tokens_P: torch.Tensor,
        places_R: torch.Tensor,
        reference_RV: torch.Tensor,
        logits_RV: torch.Tensor,
    ) -> float:
        """Adds some positions; returns the sum of their squared differences."""
        true_RV = torch.log_softmax(reference_RV.double(), -1)
        found_RV = torch.log_softmax(logits_RV.double(), -1)
        apart_RV = found_RV - true_RV
        known_R = places_R + 1 < len(tokens_P)
        following_R = tokens_P[places_R[known_R] + 1]
        self.token_errors += apart_RV[known_R].gather(1, following_R[:, None])[:, 0].tolist()
        self.kl += kl_of_logprobs(true_RV, found_RV).tolist()
        flips_R = true_RV.argmax(-1) != found_RV.argmax(-1)
        best_R2 = true_RV.topk(2, dim=-1).values
        sure_R = best_R2[:, 0] - best_R2[:, 1] > 2 * apart_RV.abs().amax(-1)
        self.certified += int(sure_R.sum())
        self.broken += int((sure_R & flips_R).sum())
        self.flips += flips_R.tolist()
        return float(apart_RV.square().sum())

    @property
    def rms(self) -> float:
        """Returns the root mean square of the next tokens' differences, in nats."""
        return math.sqrt(math.fsum(e * e for e in self.token_errors) / len(self.token_errors))

    @property
    def largest(self) -> float:
        """Returns the largest of them."""
        return max(map(abs, self.token_errors))

    @property
    def mean_exp(self) -> float:
        """Returns the mean of exp |difference|, as NeMo-RL reports it."""
        return math.fsum(math.exp(min(abs(e), 700)) for e in self.token_errors) / len(
            self.token_errors
        )

    def flip_rate(self) -> Estimate:
        """Returns the share of positions whose best token differs, prompts as clusters."""
        return clustered_proportion(self.flips, self.prompts)

    def mean_kl(self) -> Estimate:
        """Returns the mean of KL with its clustered interval."""
        return clustered_mean(self.kl, self.prompts)

    def high_kl(self) -> float:
        """Returns the 99% quantile of KL over positions."""
        ordered = sorted(self.kl)
        return ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]

    def over(self, other: Distance) -> list[float]:
        """Returns by prompt the logarithm of this run's error over the other's, which may have had
        more prompts."""
        tiny = 1e-300
        return [
            math.log(max(mine, tiny) / max(theirs, tiny))
            for mine, theirs in zip(self.errors, other.errors[: len(self.errors)], strict=True)
        ]
