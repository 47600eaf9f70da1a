"""Attention patterns.

Tensor names: H heads, P query positions, K key positions.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import torch

from ...precision import notebook
from .drawing import Drawing
from .heat import heat_table
from .png import png

LARGE = 48
"""Positions from which even a single head is drawn as a picture."""


def pattern(
    pattern: torch.Tensor,
    tokens: Sequence[str] | None = None,
    *,
    heads: Sequence[int] | None = None,
    title: str = "Attention pattern",
) -> Drawing:
    """Returns attention patterns: queries down, keys across, the darker, the more attention.

    One head of up to 48 tokens is a table that names every value under the mouse; several heads are
    small pictures side by side, each with the key that gets most from the last query.

    Args:
        pattern: [H, P, K] or [1, H, P, K] such as `cache["pattern", layer]`, or one head's [P, K].
        tokens: The texts of the K keys; None numbers them.
        heads: Which to draw; None draws all.

    Raises:
        ValueError: another shape, a batch of several, or tokens of another number.
        IndexError: a head that there is not.
    """
    x_HPK = _heads(pattern)
    n_keys = x_HPK.shape[2]
    names = [str(i) for i in range(n_keys)] if tokens is None else list(tokens)
    if len(names) != n_keys:
        raise ValueError(f"pattern: {len(names)} tokens for {n_keys} keys")
    chosen = list(range(len(x_HPK))) if heads is None else list(heads)
    for head in chosen:
        if not 0 <= head < len(x_HPK):
            raise IndexError(f"head {head} of {len(x_HPK)}")
    queries = names[n_keys - x_HPK.shape[1] :]
    if len(chosen) == 1 and n_keys <= LARGE:
        return Drawing(title, heat_table(x_HPK[chosen[0]], queries, names, 1.0))
    figures = "".join(_small(head, x_HPK[head], queries, names) for head in chosen)
    return Drawing(title, f'<div class="maps">{figures}</div>')


def _heads(pattern: torch.Tensor) -> torch.Tensor:
    x = pattern.detach().float().cpu()
    if x.ndim == 4 and len(x) == 1:
        x = x[0]
    if x.ndim == 2:
        x = x[None]
    if x.ndim != 3 or not x.numel():
        raise ValueError(
            f"pattern: expected [heads, queries, keys] of one sequence, got {list(pattern.shape)}"
        )
    return x


def _small(head: int, x_PK: torch.Tensor, queries: Sequence[str], keys: Sequence[str]) -> str:
    last = x_PK[-1]
    best = int(last.argmax())
    words = f"{queries[-1]!r} reads {keys[best]!r}: {float(last[best]):.0%}"
    data = base64.b64encode(png(x_PK)).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{notebook.visible(words)}">'
        f"<figcaption>head {head}<br>{notebook.visible(words)}</figcaption></figure>"
    )
