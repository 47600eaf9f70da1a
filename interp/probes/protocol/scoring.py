"""Running scores of conversations by several probes, from one pass of the model, rows not kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ....model.transformer import HookedTransformer
from ...dictionaries import Dictionary
from ..data import Dataset
from ..probe import Probe
from ..reading import Progress, read_passes, side_by_side, tokenize
from ..rows import TokenRows, ragged

Running = list[torch.Tensor]
"""Of each conversation, its score after each of its scored tokens, fp32 [T]."""


def score_texts(
    model: HookedTransformer,
    data: Dataset,
    probes: Sequence[Probe],
    max_tokens: int,
    *,
    dictionary: Dictionary | None = None,
    progress: Progress | None = None,
    stage: str = "scoring",
) -> list[Running]:
    """Returns the running scores of every conversation by each probe.

    Args:
        dictionary: What the probes' features are of; None for activations.

    Raises ValueError for a conversation no longer than the tokens that a probe skips.
    """
    tokens = tokenize(model, data, max_tokens)
    hooks = tuple(dict.fromkeys(name for probe in probes for name in probe.hook_names))
    found: list[Running] = [
        [torch.empty(0, dtype=torch.float32, device="cpu")] * len(data) for _ in probes
    ]
    for held, rows in read_passes(model, tokens, hooks, progress, stage):
        lengths = [len(tokens.ids[i]) for i in held]
        each = {
            name: ragged(x if dictionary is None else dictionary.encode_sparse(x), lengths)
            for name, x in rows.items()
        }
        for probe, running in zip(probes, found, strict=True):
            of_hooks = side_by_side([each[name] for name in probe.hook_names])
            for i, scores in zip(held, running_scores(probe, of_hooks), strict=True):
                running[i] = scores
    return found


def scorable(model: HookedTransformer, data: Dataset, max_tokens: int, skipped: int) -> Dataset:
    """Returns the conversations longer than the tokens that a probe skips; what was removed says
    how many were not."""
    lengths = tokenize(model, data, max_tokens).lengths
    kept = data.take([i for i, n in enumerate(lengths) if n > skipped])
    short = {"too short to score": len(data) - len(kept)} if len(kept) < len(data) else {}
    return replace(kept, removed={**data.removed, **short})


def running_scores(probe: Probe, rows: TokenRows) -> Running:
    """Returns each conversation's score after each of its scored tokens.

    Raises ValueError for a conversation without any.
    """
    rows.without_first(probe.skip_first).check_none_empty()
    return [row[~row.isnan()] for row in probe.running_scores(rows)]
