"""Some rows of an operation: its contract's inputs and output, cut to what those rows need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..precision.operations import OPERATIONS, UNITS

ROW_AXES: Mapping[str, tuple[Mapping[str, int], int]] = {
    op: (
        {
            name: letters.index(operation.axes.rows)
            for name, letters in operation.axes.inputs.items()
            if operation.axes.rows in letters
        },
        operation.axes.output.index(operation.axes.rows),
    )
    for op, operation in (OPERATIONS | UNITS).items()
}
"""By operation: the row axis of each input that has one, and the output's."""


def sample_rows(
    op: str, inputs: Mapping[str, Any], y: torch.Tensor, rows: int, generator: torch.Generator
) -> tuple[dict[str, Any], torch.Tensor]:
    """At most so many rows, drawn without replacement; of attention, consecutive queries."""
    axes, out_axis = ROW_AXES[op]
    n = y.shape[out_axis]
    if n <= rows:
        return dict(inputs), y
    if op == "attention":
        return _consecutive_queries(inputs, y, rows, generator)
    picked = torch.randperm(n, generator=generator)[:rows].sort().values
    cut = {
        name: value.index_select(axes[name], picked) if name in axes else value
        for name, value in inputs.items()
    }
    return cut, y.index_select(out_axis, picked)


def _consecutive_queries(
    inputs: Mapping[str, Any], y: torch.Tensor, rows: int, generator: torch.Generator
) -> tuple[dict[str, Any], torch.Tensor]:
    """Queries that stand together, so that one number of past keys holds for them."""
    n = y.shape[1]
    start = int(torch.randint(n - rows + 1, (1,), generator=generator))
    past = inputs["k"].shape[1] - n + start
    cut = {name: inputs[name][:, : past + rows] for name in ("k", "v")}
    return (
        {**inputs, **cut, "q": inputs["q"][:, start : start + rows], "past": past},
        y[:, start : start + rows],
    )
