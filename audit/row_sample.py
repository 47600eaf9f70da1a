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

KEY_AXES: Mapping[str, Mapping[str, int]] = {
    op: {
        name: letters.index("s")
        for name, letters in operation.axes.inputs.items()
        if "s" in letters and operation.axes.rows == "t"
    }
    for op, operation in (OPERATIONS | UNITS).items()
}
"""By operation: the axis of each input along which its rows look back, if they do."""


def sample_rows(
    op: str, inputs: Mapping[str, Any], y: torch.Tensor, rows: int, generator: torch.Generator
) -> tuple[dict[str, Any], torch.Tensor]:
    """At most so many rows, drawn without replacement; where they look back on one another, as in
    attention, consecutive ones."""
    axes, out_axis = ROW_AXES[op]
    n = y.shape[out_axis]
    if n <= rows:
        return dict(inputs), y
    if KEY_AXES[op]:
        start = int(torch.randint(n - rows + 1, (1,), generator=generator))
        return queries_from(op, inputs, start, rows), y.narrow(out_axis, start, rows)
    picked = torch.randperm(n, generator=generator)[:rows].sort().values
    cut = {
        name: value.index_select(axes[name], picked) if name in axes else value
        for name, value in inputs.items()
    }
    return cut, y.index_select(out_axis, picked)


def queries_from(op: str, inputs: Mapping[str, Any], start: int, n: int) -> dict[str, Any]:
    """So many queries that stand together, so that one number of past keys holds for them, and the
    keys up to the last of them."""
    cut = dict(inputs)
    past = int(inputs["past"]) + start
    for name, axis in KEY_AXES[op].items():
        cut[name] = inputs[name].narrow(axis, 0, past + n)
    for name, axis in ROW_AXES[op][0].items():
        cut[name] = inputs[name].narrow(axis, start, n)
    return cut | {"past": past}
