"""A sampler over shards as it is usually written: softmax, top-p, then top-k, in floating point.

Tensor names: B batch, V a slice of the vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

TopK = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
"""(logits [B, V], k) -> values [B, K] and ids [B, K], best first."""


@dataclass(frozen=True)
class Candidates:
    """The tokens that a sampler draws from, with their logits.

    Attributes:
        ids: int64 [B, K], best first.
        logits: fp32 [B, K]; -inf where the filters took the token.
    """

    ids: torch.Tensor
    logits: torch.Tensor

    def holds(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Whether each row's token is among its candidates: bool [B]."""
        present_BK = (self.ids == tokens_B[:, None]) & self.logits.isfinite()
        return present_BK.any(dim=1)

    def first(self) -> torch.Tensor:
        """The best candidate: int64 [B], -1 where the filters left none."""
        return torch.where(self.logits[:, 0].isfinite(), self.ids[:, 0], -1)

    def draw(self, gumbel_BV: torch.Tensor) -> torch.Tensor:
        """The candidate of the largest logit + noise: int64 [B], -1 where there is none."""
        scores_BK = self.logits + gumbel_BV.gather(1, self.ids)
        best_B1 = scores_BK.argmax(dim=1, keepdim=True)
        none_B1 = scores_BK.gather(1, best_B1).isneginf()
        return self.ids.gather(1, best_B1).masked_fill(none_B1, -1)[:, 0]


def exact_top_k(logits_BV: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`torch.topk` along the vocabulary."""
    values_BK, ids_BK = logits_BV.topk(k, dim=1)
    return values_BK, ids_BK


def naive_candidates(
    shards: Sequence[torch.Tensor],
    *,
    top_p: float,
    top_k: int,
    boundary: torch.dtype = torch.float32,
    compared: torch.dtype = torch.float32,
    shard_top_k: TopK = exact_top_k,
) -> Candidates:
    """Filters the logits of N shards: top_p over all, then top_k of what is left (`joint`).

    The nucleus is found by its boundary, the probability of its last token; tokens are then held
    against that. Where the two are computed in different precisions, a best token that makes up
    the nucleus alone fails against its own probability whenever its rounding goes down.

    Args:
        shards: fp32 [B, V_i], in the order of ids; already divided by temperature.
        boundary: The dtype of the probabilities that are sorted and summed.
        compared: The dtype of the probabilities that are held against the boundary.
        shard_top_k: Run on each shard; the winners are merged exactly.
    """
    probabilities = _softmax(shards)
    boundary_B1 = _last_kept(torch.cat([p.to(boundary) for p in probabilities], dim=1), top_p)
    values, ids, start = [], [], 0
    for shard, p in zip(shards, probabilities, strict=True):
        is_out_BV = p.to(compared).float() < boundary_B1.float()
        found = shard_top_k(shard.masked_fill(is_out_BV, -torch.inf), min(top_k, shard.shape[1]))
        values.append(found[0])
        ids.append(found[1] + start)
        start += shard.shape[1]
    merged_BK, order_BK = torch.cat(values, dim=1).sort(dim=1, descending=True, stable=True)
    ids_BK = torch.cat(ids, dim=1).gather(1, order_BK)
    return Candidates(ids_BK[:, :top_k], merged_BK[:, :top_k])


def _softmax(shards: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each shard's probabilities, the shards' sums added in rank order."""
    max_B1 = torch.stack([shard.amax(dim=1, keepdim=True) for shard in shards]).amax(dim=0)
    weights = [torch.exp(shard - max_B1) for shard in shards]
    total_B1 = torch.zeros_like(max_B1)
    for weight_BV in weights:
        total_B1 = total_B1 + weight_BV.sum(dim=1, keepdim=True)
    return [weight_BV / total_B1 for weight_BV in weights]


def _last_kept(p_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest probability in the nucleus, [B, 1]: the mass before it is less than top_p."""
    sorted_BV = p_BV.sort(dim=1, descending=True).values
    before_BV = sorted_BV.cumsum(dim=1).roll(1, dims=1)
    before_BV[:, 0] = 0
    kept_B1 = (before_BV < top_p).sum(dim=1, keepdim=True)
    return sorted_BV.gather(1, kept_B1 - 1)
