"""Another sampler's tokens, held against the exact distribution.

Tensor names: B rows, V vocabulary, N draws a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..sampling import SamplingParams, sample
from ..sampling.batch import Batch
from .chi_squared import chi_squared, survival
from .distribution import distribution
from .planned_draws import TESTS
from .sampler_tests import boundary_p_value, shared_noise_p_value, temperature_p_value


@dataclass(frozen=True)
class OracleReport:
    """The findings of `judge`.

    Attributes:
        impossible: bool [B, N], tokens that the parameters exclude.
        kept: int64 [B], how many tokens they leave.
        statistic, degrees: Of the chi-squared test of all other tokens, summed over rows; rows with
            too few draws for two cells add nothing.
        p_value: How likely a right sampler is to do worse in that; None if no row had draws enough.
        temperature: A p-value against a temperature slightly off.
        boundary: One against a filter that leaves out the last token it should keep.
        shared_noise: One against noise that is shared by rows. These three None where they could
            show nothing: an impossible token, a single row, fewer than 100 draws.
        draws: N, what each row was judged by; `draws_needed` says how many a mistake takes.
        different: bool [B, N], tokens other than bitlens' own; None unless positions were given.
    """

    impossible: torch.Tensor
    kept: torch.Tensor
    statistic: float
    degrees: int
    p_value: float | None
    different: torch.Tensor | None
    temperature: float | None = None
    boundary: float | None = None
    shared_noise: float | None = None

    @property
    def draws(self) -> int:
        return self.impossible.shape[1]

    def passes(self, false_alarm_rate: float = 1e-3) -> bool:
        """No impossible token, and draws that a right sampler would so rarely make: each of the
        four tests has a quarter of that rate.

        Raises ValueError where there was nothing to test.
        """
        if self.impossible.any():
            return False
        values = (self.p_value, self.temperature, self.boundary, self.shared_noise)
        known = [p for p in values if p is not None]
        untested = self.p_value is None and self.temperature is None
        if untested and (self.kept > 1).any():
            raise ValueError("tokens: too few draws of any row for a test of it")
        return all(p >= false_alarm_rate / TESTS for p in known)


def judge(
    logits: torch.Tensor,
    params: SamplingParams | Sequence[SamplingParams],
    tokens: torch.Tensor,
    positions: torch.Tensor | Sequence[int] | None = None,
    *,
    prompt_ids: Sequence[Sequence[int]] | None = None,
    output_ids: Sequence[Sequence[int]] | None = None,
) -> OracleReport:
    """Says which tokens cannot come from these logits and parameters, and tests the others: their
    frequencies, their mean logit, the last token kept, and whether rows are independent.

    Args:
        logits: [B, V], fp32, bf16 or fp16, as the other sampler got them.
        params: One for all rows or one a row.
        tokens: Integers [B, N], independent draws of each row.
        positions: [B]; with them and seeds, token [b, j] is also compared with bitlens' draw j.
        prompt_ids, output_ids: As for `sample`.

    Raises ValueError for shapes that do not fit, and for rows that leave nothing to draw.
    """
    if tokens.ndim != 2 or len(tokens) != len(logits) or tokens.is_floating_point():
        raise ValueError(
            f"tokens: expected integers [{len(logits)}, draws], got {tokens.dtype} "
            f"{list(tokens.shape)}"
        )
    size = len(logits)
    batch = Batch.make(
        params, [0] * size, None, prompt_ids, output_ids, size=size, seeds_must_agree=False
    )
    found = distribution(logits, batch, prompt_ids, output_ids)
    is_id_BN = (tokens >= 0) & (tokens < logits.shape[1])
    ids_BN = torch.where(is_id_BN, tokens, 0).long()
    possible_BN = is_id_BN & found.kept.gather(1, ids_BN)
    statistic, degrees = 0.0, 0
    for row, ids in enumerate(ids_BN):
        kept = found.kept[row].nonzero()[:, 0]
        counts = torch.bincount(ids[possible_BN[row]], minlength=logits.shape[1])[kept]
        of_row = chi_squared(counts, found.p[row, kept])
        statistic, degrees = statistic + of_row[0], degrees + of_row[1]
    sound = bool(possible_BN.all())
    return OracleReport(
        impossible=~possible_BN,
        kept=found.kept.sum(dim=1),
        statistic=statistic,
        degrees=degrees,
        p_value=survival(statistic, degrees) if degrees else None,
        different=None
        if positions is None
        else _own_draws(logits, batch, positions, tokens.shape[1]) != tokens,
        temperature=temperature_p_value(found.x, found.p, ids_BN) if sound else None,
        boundary=boundary_p_value(found.p, found.boundary, ids_BN) if sound else None,
        shared_noise=shared_noise_p_value(found.p, ids_BN) if sound else None,
    )


def _own_draws(
    logits: torch.Tensor, batch: Batch, positions: torch.Tensor | Sequence[int], n: int
) -> torch.Tensor:
    """bitlens' draws 0 to n - 1 of each row, int64 [B, N]."""
    if any(p.seed is None and not p.greedy for p in batch.params):
        raise ValueError("positions: comparing tokens needs a seed in every row's params")
    columns = [
        sample(
            logits,
            batch.params,
            positions=positions,
            draws=[draw] * len(logits),
            prompt_ids=batch.prompts,
            output_ids=batch.outputs,
        ).tokens
        for draw in range(n)
    ]
    return torch.stack(columns, dim=1)
