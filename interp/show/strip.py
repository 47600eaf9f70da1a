"""Tokens in a line, coloured by a value."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...precision import notebook
from .drawing import Drawing


def tokens(
    tokens: Sequence[str],
    values: Sequence[float] | torch.Tensor,
    *,
    title: str = "",
    limit: float | None = None,
) -> Drawing:
    """Returns tokens coloured by a value: blue above 0, red below; the mouse shows the number.

    Args:
        tokens: Texts, as `model.to_str_tokens` gives them.
        values: As many numbers; NaN leaves a token uncoloured.
        limit: The value of the full colour; None takes the largest absolute value.

    Raises ValueError for another number of values.
    """
    x = torch.as_tensor(values).detach().double().flatten().cpu()
    if len(x) != len(tokens):
        raise ValueError(f"tokens: {len(x)} values for {len(tokens)} tokens")
    full = limit or float(x.nan_to_num(0, 0, 0).abs().max() if len(x) else 0) or 1.0
    spans = "".join(
        f'<span title="{notebook.number(value)}" style="{notebook.heat(value / full)}">'
        f"{notebook.visible(token)}</span>"
        for token, value in zip(tokens, x.tolist(), strict=True)
    )
    return Drawing(title, f'<div class="strip">{spans}</div>')
