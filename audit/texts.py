"""The tokens an audit runs on: prompts, cut to one length or continued to it by model A itself.

Tensor names: N prompts, P positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..model.text.prompts import encode

if TYPE_CHECKING:
    from ..model.transformer import HookedTransformer

_BATCH = 32


@dataclass(frozen=True)
class Texts:
    """Token ids int64 [N, P], and how many of them A wrote."""

    tokens_NP: torch.Tensor
    written: int


def texts(
    model: HookedTransformer,
    prompts: Sequence[str],
    n_tokens: int,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Texts:
    """Every prompt as n_tokens ids: its first ones, or itself and A's continuation.

    Continuations are sampled at temperature 1 from A's whole distribution: text such as A would
    write, not the loops that greedy decoding falls into. The same seed gives the same tokens.

    Raises ValueError for no prompts and for more tokens than the model's context.
    """
    if not prompts:
        raise ValueError("no prompts: the file holds no line with text")
    if not 2 <= n_tokens <= model.config.n_ctx:
        raise ValueError(f"{n_tokens} tokens a prompt: expected 2 to {model.config.n_ctx}")
    rows = [row[:n_tokens] for row in encode(list(prompts), model.tokenizer, None)]
    if not all(rows):
        raise ValueError(f"prompt {rows.index([]) + 1} has no tokens")
    found: list[list[int]] = []
    for start in range(0, len(rows), _BATCH):
        found += _continued(model, rows[start : start + _BATCH], n_tokens, seed + start)
        if progress is not None:
            progress(len(found), len(rows))
    written = sum(n_tokens - len(row) for row in rows)
    return Texts(torch.tensor(found, dtype=torch.int64), written)


def _continued(
    model: HookedTransformer, rows: list[list[int]], n_tokens: int, seed: int
) -> list[list[int]]:
    missing = n_tokens - min(map(len, rows))
    if missing == 0:
        return rows
    out = model.generate(
        rows, max_new_tokens=missing, min_new_tokens=missing, temperature=1.0, seed=seed
    )
    new = out.tokens[:, -missing:].tolist()
    return [(row + more)[:n_tokens] for row, more in zip(rows, new, strict=True)]
