"""A matrix as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...precision import notebook
from .drawing import Drawing

MOST_CELLS = 40_000
_WITH_NUMBERS = 14
"""Columns up to which a cell has room for its number."""


def heatmap(
    values: torch.Tensor,
    rows: Sequence[object] | None = None,
    columns: Sequence[object] | None = None,
    *,
    title: str = "",
    limit: float | None = None,
) -> Drawing:
    """Returns a heat map: blue above 0, red below, the stronger, the farther from it.

    Args:
        values: [R, C].
        rows: R labels; None numbers them.
        columns: C labels; None numbers them.
        limit: The value of the full colour; None takes the largest absolute value.

    Raises ValueError for another shape, for labels of another number, and for more than 40,000
    cells.
    """
    return Drawing(title, heat_table(values, rows, columns, limit))


def heat_table(
    values: torch.Tensor,
    rows: Sequence[object] | None,
    columns: Sequence[object] | None,
    limit: float | None = None,
) -> str:
    """Returns the HTML of a heat map; arguments, and what is raised, as `heatmap`."""
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"heatmap: expected a matrix, got a tensor {list(values.shape)}")
    if values.numel() > MOST_CELLS:
        raise ValueError(
            f"heatmap: {values.numel():,} cells; more than {MOST_CELLS:,} are not drawn"
        )
    names = [
        list(range(n)) if labels is None else list(labels)
        for n, labels in zip(values.shape, (rows, columns), strict=True)
    ]
    if [len(labels) for labels in names] != list(values.shape):
        raise ValueError(
            f"heatmap: {len(names[0])} row and {len(names[1])} column labels for "
            f"{list(values.shape)}"
        )
    x = values.detach().double().cpu()
    full = limit or float(x.nan_to_num(0, 0, 0).abs().max()) or 1.0
    places = max(0, 2 - math.floor(math.log10(full))) if x.shape[1] <= _WITH_NUMBERS else None
    head = "".join(f'<th scope="col">{notebook.visible(str(name))}</th>' for name in names[1])
    body = []
    for name, row in zip(names[0], x.tolist(), strict=True):
        cells = "".join(
            _cell(value, full, places, f"{name}, {column}")
            for value, column in zip(row, names[1], strict=True)
        )
        body.append(f'<tr><th scope="row">{notebook.visible(str(name))}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(value: float, full: float, places: int | None, where: str) -> str:
    text = "" if places is None else f"{value:.{places}f}"
    title = notebook.visible(f"{where}: {notebook.number(value)}")
    return f'<td class="number" title="{title}" style="{notebook.heat(value / full)}">{text}</td>'
