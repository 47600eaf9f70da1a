"""Another sampler's tokens, held against the exact distribution.

Tensor names: B rows, V vocabulary, N draws a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..sampling import SamplingParams, sample
from ..sampling.batch import Batch
from ..sampling.shard import Shard
from .chi_squared import chi_squared, survival


@dataclass(frozen=True)
class OracleReport:
    """The findings of `judge`.

    Attributes:
        impossible: bool [B, N], tokens that the parameters exclude.
        kept: int64 [B], how many tokens they leave.
        statistic, degrees: Of the chi-squared test of all other tokens, summed over rows; rows with
            too few draws for two cells add nothing.
        p_value: How likely a right sampler is to do worse; None if no row had draws enough.
        different: bool [B, N], tokens other than bitlens' own; None unless positions were given.
    """

    impossible: torch.Tensor
    kept: torch.Tensor
    statistic: float
    degrees: int
    p_value: float | None
    different: torch.Tensor | None

    def passes(self, false_alarm_rate: float = 1e-3) -> bool:
        """No impossible token, and a distribution a right sampler would miss so rarely.

        Raises ValueError where there was nothing to test.
        """
        if self.impossible.any():
            return False
        if self.p_value is None and (self.kept > 1).any():
            raise ValueError("tokens: too few draws of any row for a chi-squared test of it")
        return self.p_value is None or self.p_value >= false_alarm_rate


def judge(
    logits: torch.Tensor,
    params: SamplingParams | Sequence[SamplingParams],
    tokens: torch.Tensor,
    positions: torch.Tensor | Sequence[int] | None = None,
    *,
    prompt_ids: Sequence[Sequence[int]] | None = None,
    output_ids: Sequence[Sequence[int]] | None = None,
) -> OracleReport:
    """Says which tokens cannot come from these logits and parameters, and tests the others.

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
    kept_BV, weights_BV = _distribution(logits, batch, prompt_ids, output_ids)
    is_id_BN = (tokens >= 0) & (tokens < logits.shape[1])
    ids_BN = torch.where(is_id_BN, tokens, 0).long()
    possible_BN = is_id_BN & kept_BV.gather(1, ids_BN)
    statistic, degrees = 0.0, 0
    for row, ids in enumerate(ids_BN):
        kept = kept_BV[row].nonzero()[:, 0]
        counts = torch.bincount(ids[possible_BN[row]], minlength=logits.shape[1])[kept]
        weights = weights_BV[row, kept]
        of_row = chi_squared(counts, weights / weights.sum())
        statistic, degrees = statistic + of_row[0], degrees + of_row[1]
    return OracleReport(
        impossible=~possible_BN,
        kept=kept_BV.sum(dim=1),
        statistic=statistic,
        degrees=degrees,
        p_value=survival(statistic, degrees) if degrees else None,
        different=None
        if positions is None
        else _own_draws(logits, batch, positions, tokens.shape[1]) != tokens,
    )


def _distribution(
    logits: torch.Tensor,
    batch: Batch,
    prompt_ids: Sequence[Sequence[int]] | None,
    output_ids: Sequence[Sequence[int]] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tokens are kept, bool [B, V], and weights proportional to probability, fp64 [B, V]."""
    found = sample(
        logits,
        batch.params,
        positions=[0] * len(logits),
        prompt_ids=prompt_ids,
        output_ids=output_ids,
        return_certificate=True,
    )
    x_BV = Shard.prepare(logits.detach(), 0, batch)[0].x
    ids_V = torch.arange(logits.shape[1])
    kept = torch.zeros(x_BV.shape, dtype=torch.bool)
    weights = torch.zeros(x_BV.shape, dtype=torch.float64)
    for row, certificate in enumerate(found.certificate or []):
        if certificate is None:
            raise ValueError(f"logits: row {row} holds NaN or +inf, or no finite logit")
        x_V = x_BV[row]
        ties_V = (x_V == certificate.threshold_logit) & (ids_V <= certificate.threshold_id)
        kept[row] = (x_V > certificate.threshold_logit) | ties_V
        if certificate.typical is not None:
            kept[row] &= certificate.typical.holds(x_V, certificate.x_max)
        weights[row] = torch.exp(x_V.double() - certificate.x_max)
    return kept, weights


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
