"""The faults on a real model's logits, prompt by prompt and shard count by shard count.

Tensor names: B prompts, V vocabulary, D draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from ...model.hooks.progress import track
from ...model.sampling import SamplingParams, sample, sample_shards
from .approximate_top_k import approx_top_k, approx_top_k_losing_tail
from .excess_precision import excess_precision
from .naive_sampler import Candidates, naive_candidates

if TYPE_CHECKING:
    from ...model.transformer import HookedTransformer

TOP_P = 0.95
TOP_K = 50
RECALL_TARGET = 0.95
DRAWS = 16

_BATCH = 16

EXACT = "bitlens"
EXACT_ON_ROUNDED = "bitlens, on odd shards' faulty logits"

Filter = Callable[[list[torch.Tensor]], Candidates]


@dataclass(frozen=True)
class Rate:
    """The results of one sampler over all prompts at one shard count.

    Attributes:
        sampler: One of `FAULTS`, `EXACT` or `EXACT_ON_ROUNDED`.
        best_lost: Prompts whose best token was no candidate.
        best_not_first: Prompts whose best token was not the sampler's first choice.
        tokens_changed: Sampled tokens, of prompts times `DRAWS`, other than with the same noise
            from one shard without the fault.
    """

    sampler: str
    shards: int
    prompts: int
    best_lost: int
    best_not_first: int
    tokens_changed: int


def shipped_prompts() -> list[str]:
    """Short beginnings of texts: facts, prose, code, lists, dialogue, several languages."""
    text = files(__package__).joinpath("prompts.txt").read_text(encoding="utf-8")
    return text.splitlines()


def _odd(shards: Sequence[torch.Tensor]) -> range:
    return range(1, len(shards), 2)


def _fp32(shards: list[torch.Tensor]) -> Candidates:
    return naive_candidates(shards, top_p=TOP_P, top_k=TOP_K)


def _bf16(shards: list[torch.Tensor]) -> Candidates:
    rounded = excess_precision(shards, range(len(shards)))
    bf16 = torch.bfloat16
    return naive_candidates(rounded, top_p=TOP_P, top_k=TOP_K, boundary=bf16, compared=bf16)


def _excess_logits(shards: list[torch.Tensor]) -> Candidates:
    return _fp32(excess_precision(shards, _odd(shards)))


def _excess_boundary(shards: list[torch.Tensor]) -> Candidates:
    return naive_candidates(shards, top_p=TOP_P, top_k=TOP_K, compared=torch.bfloat16)


def _approximate(shards: list[torch.Tensor]) -> Candidates:
    return naive_candidates(
        shards, top_p=TOP_P, top_k=TOP_K, shard_top_k=lambda x, k: approx_top_k(x, k, RECALL_TARGET)
    )


def _approximate_broken(shards: list[torch.Tensor]) -> Candidates:
    return naive_candidates(
        shards,
        top_p=TOP_P,
        top_k=TOP_K,
        shard_top_k=lambda x, k: approx_top_k_losing_tail(x, k, RECALL_TARGET),
    )


FAULTS: dict[str, Filter] = {
    "fp32, no fault": _fp32,
    "bf16, no fault": _bf16,
    "excess precision, odd shards' logits": _excess_logits,
    "excess precision, nucleus test": _excess_boundary,
    "approximate top-k": _approximate,
    "approximate top-k, tail lost": _approximate_broken,
}


@torch.no_grad()
def run_postmortem(
    model: HookedTransformer,
    prompts: Sequence[str],
    shard_counts: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> list[Rate]:
    """Runs every sampler on the model's next-token logits, temperature 1, top_p then top_k.

    Args:
        progress: Called with (prompts done, prompts in all); default: a bar, on a terminal or in a
            notebook.

    Raises ValueError for no prompts, and for shard counts beyond what top_k leaves room for.
    """
    most = model.config.d_vocab // TOP_K
    if not prompts or not shard_counts or not all(1 <= n <= most for n in shard_counts):
        raise ValueError(
            f"{len(prompts)} prompts, shards {list(shard_counts)}: expected at least one prompt "
            f"and shard counts from 1 to {most}, so that each holds {TOP_K} tokens"
        )
    counts: dict[tuple[str, int], list[int]] = {}
    starts = range(0, len(prompts), _BATCH)
    for start in starts if progress is not None else track(starts, "prompts"):
        texts = list(prompts[start : start + _BATCH])
        logits_BV = model.forward_last(texts).float()
        for key, found in _compare(logits_BV, start, shard_counts).items():
            so_far = counts.setdefault(key, [0, 0, 0])
            counts[key] = [a + b for a, b in zip(so_far, found, strict=True)]
        if progress is not None:
            progress(start + len(texts), len(prompts))
    return [Rate(sampler, n, len(prompts), *found) for (sampler, n), found in counts.items()]


def _compare(
    logits_BV: torch.Tensor, first_prompt: int, shard_counts: Sequence[int]
) -> dict[tuple[str, int], tuple[int, int, int]]:
    """(best lost, best not first, tokens changed) of each sampler and shard count."""
    best_B = logits_BV.argmax(dim=1)
    noise = [gumbel(logits_BV.shape, first_prompt, draw) for draw in range(DRAWS)]
    unsharded = _fp32([logits_BV])
    expected = torch.stack([unsharded.draw(gumbel_BV) for gumbel_BV in noise])
    found = {}
    for name, fault in FAULTS.items():
        for n in shard_counts:
            candidates = fault(list(logits_BV.tensor_split(n, dim=1)))
            drawn = torch.stack([candidates.draw(gumbel_BV) for gumbel_BV in noise])
            found[name, n] = (
                int((~candidates.holds(best_B)).sum()),
                int((candidates.first() != best_B).sum()),
                int((drawn != expected).sum()),
            )
    for n in shard_counts:
        shards = list(logits_BV.tensor_split(n, dim=1))
        found[EXACT, n] = _compare_exact(shards, first_prompt)
        rounded = excess_precision(shards, _odd(shards))
        found[EXACT_ON_ROUNDED, n] = _compare_exact(rounded, first_prompt)
    return found


def _compare_exact(shards: list[torch.Tensor], first_prompt: int) -> tuple[int, int, int]:
    """Compares the exact sampler on these logits with itself on one shard of them."""
    whole_BV = torch.cat(shards, dim=1)
    size = len(whole_BV)
    best_B = whole_BV.argmax(dim=1)
    rows = torch.arange(size).repeat_interleave(DRAWS)
    params = [
        SamplingParams(top_p=TOP_P, top_k=TOP_K, seed=first_prompt + b, filter_apply_order="joint")
        for b in rows.tolist()
    ]
    positions, draws = [0] * len(rows), list(range(DRAWS)) * size
    sharded = sample_shards(
        [shard[rows] for shard in shards],
        params,
        positions=positions,
        draws=draws,
        return_certificate=True,
    )
    alone = sample(whole_BV[rows], params, positions=positions, draws=draws)
    greedy = SamplingParams(temperature=0)
    first_B = sample_shards(shards, greedy, positions=[0] * size).tokens
    lost = 0
    for b, certificate in enumerate((sharded.certificate or [])[::DRAWS]):
        best = float(whole_BV[b, best_B[b]])
        holds = certificate is not None and (
            (best, -int(best_B[b])) >= (certificate.threshold_logit, -certificate.threshold_id)
        )
        lost += not holds
    return lost, int((first_B != best_B).sum()), int((sharded.tokens != alone.tokens).sum())


def gumbel(shape: torch.Size, first_prompt: int, draw: int) -> torch.Tensor:
    """fp32 [B, V], a function of prompt, draw and token alone."""
    rows = []
    for b in range(shape[0]):
        generator = torch.Generator().manual_seed((first_prompt + b) * DRAWS + draw)
        rows.append(torch.empty(shape[1]).exponential_(generator=generator))
    return -torch.stack(rows).clamp_min(torch.finfo(torch.float32).tiny).log()
