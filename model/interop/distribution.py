"""The exact distribution of each row's next token.

Tensor names: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..sampling import sample
from ..sampling.batch import Batch
from ..sampling.shard import Shard

Tensor = torch.Tensor


@dataclass(frozen=True)
class Distribution:
    """The distribution that parameters make of logits.

    Attributes:
        kept: bool [B, V], tokens that the parameters leave.
        p: fp64 [B, V], their probabilities; 0 for the others.
        x: [B, V], logits after penalties and temperature.
        boundary: int64 [B], the last token that is kept.
    """

    kept: Tensor
    p: Tensor
    x: Tensor
    boundary: Tensor


def distribution(
    logits: Tensor,
    batch: Batch,
    prompt_ids: Sequence[Sequence[int]] | None = None,
    output_ids: Sequence[Sequence[int]] | None = None,
) -> Distribution:
    """Returns the distribution of each row. Raises ValueError for rows that leave nothing."""
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
    p_BV = torch.zeros(x_BV.shape, dtype=torch.float64)
    boundary = torch.zeros(len(logits), dtype=torch.int64)
    for row, certificate in enumerate(found.certificate or []):
        if certificate is None:
            raise ValueError(f"logits: row {row} holds NaN or +inf, or no finite logit")
        x_V = x_BV[row]
        ties_V = (x_V == certificate.threshold_logit) & (ids_V <= certificate.threshold_id)
        kept[row] = (x_V > certificate.threshold_logit) | ties_V
        boundary[row] = certificate.threshold_id
        if certificate.typical is not None:
            kept[row] &= certificate.typical.holds(x_V, certificate.x_max)
            boundary[row] = x_V.masked_fill(~kept[row], torch.inf).argmin()
        weights_V = torch.exp(x_V.double() - certificate.x_max).masked_fill(~kept[row], 0.0)
        p_BV[row] = weights_V / weights_V.sum()
    return Distribution(kept, p_BV, x_BV, boundary)
