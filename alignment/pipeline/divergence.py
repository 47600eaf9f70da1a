"""The distance of a trained policy from the one that it began from, beside what it gained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...model.training import rollout
from ...model.transformer import HookedTransformer
from ...precision.statistics import clustered_mean
from ..draws import digest_of, draw_seed
from ..prompt_rows import PromptRow
from ..revision.targets import as_prompt
from ..row_file import Row, RowFile
from .behaviour import bounded_mean
from .optimisation_path import gold


@dataclass(frozen=True)
class Divergence:
    """A stage's policy against the one before it, by answers that each samples at temperature 1.

    Attributes:
        kl, low, high: The KL divergence in nats of the new policy's answers, with its 95% interval
            over prompts: at each position that of the whole distribution, summed over an answer.
        per_token: The same over all tokens.
        before, after: The share of answers that are what the stand-in's rules want, of the policy
            before and of this one; None for prompts of one's own.
        change, change_low, change_high: Their paired difference.
    """

    stage: str
    n: int
    kl: float
    low: float
    high: float
    per_token: float
    before: float | None
    after: float | None
    change: float | None
    change_low: float | None
    change_high: float | None


def divergence(
    stage: str,
    policy: HookedTransformer,
    reference: Callable[[], HookedTransformer],
    prompts: Sequence[PromptRow],
    output: Path,
    *,
    seed: int,
    max_new_tokens: int,
    chat: bool,
    has_gold: bool,
    ungated: bool = False,
) -> Divergence:
    """Returns the distance of a policy on prompts; a row a prompt is written to `output`.

    `reference` makes the policy before, and is called only where a row is missing.
    """
    identity = [policy.fingerprint(), policy.ops.policy.name, seed, max_new_tokens, has_gold]
    run = digest_of(["divergence", stage, *identity, list(prompts)])
    file = RowFile(output, run, ungated=ungated)

    def measured(part: Sequence[PromptRow]) -> Iterator[Row]:
        first = reference()
        for row in part:
            yield _row(row, policy, first, seed, max_new_tokens, chat=chat, has_gold=has_gold)

    found = file.fill(prompts, len(prompts), measured)
    kl = [row["kl"] for row in found]
    distance = clustered_mean(kl, range(len(kl)))
    shares: tuple[float | None, ...] = (None,) * 5
    if has_gold:
        before, after = ([row[name] for row in found] for name in ("before", "after"))
        differences = [b - a for a, b in zip(before, after, strict=True)]
        shares = _mean(before), _mean(after), *bounded_mean(differences, -1.0, 1.0)
    per_token = sum(kl) / sum(row["n_tokens"] for row in found)
    interval = max(0.0, distance.interval.low), distance.interval.high
    return Divergence(stage, len(found), distance.mean, *interval, per_token, *shares)


def _row(
    row: PromptRow,
    policy: HookedTransformer,
    reference: HookedTransformer,
    seed: int,
    max_new_tokens: int,
    *,
    chat: bool,
    has_gold: bool,
) -> Row:
    settings: dict[str, Any] = {
        "n": 1,
        "max_new_tokens": max_new_tokens,
        "temperature": 1.0,
        "seed": draw_seed(seed, row["id"], "divergence"),
    }
    asked: Any = [as_prompt(row["text"], chat)]
    answers = rollout(policy, asked, **settings)
    sampled = answers.sampled[0].nonzero().flatten().tolist()
    found: Row = {"id": row["id"], "n_tokens": len(sampled)}
    found["kl"] = float(_kl(policy, reference, answers.tokens, sampled).sum())
    if has_gold:
        found["before"] = gold(row, rollout(reference, asked, **settings).text[0].strip())
        found["after"] = gold(row, answers.text[0].strip())
    return found


@torch.no_grad()
def _kl(
    policy: HookedTransformer,
    reference: HookedTransformer,
    tokens: torch.Tensor,
    sampled: Sequence[int],
) -> np.ndarray:
    """The divergence at each sampled position; sums by numpy, whose order no thread changes."""
    p, q = (
        torch.log_softmax(model(tokens)[0, [i - 1 for i in sampled]].double(), 1).numpy()
        for model in (policy, reference)
    )
    found: np.ndarray = (np.exp(p) * (p - q)).sum(1)
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
