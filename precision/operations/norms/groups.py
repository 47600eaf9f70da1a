"""The groups of a GroupNorm, as rows of a LayerNorm."""

from __future__ import annotations

from typing import Any

import torch

from ...inputs import Inputs

Tensor = torch.Tensor


def as_layers(inputs: Inputs) -> dict[str, Any]:
    """Returns x [rows, groups, channels and positions of one], and a weight and bias like a row."""
    x, groups = inputs["x"], inputs["groups"]
    rows = x.reshape(x.shape[0], groups, -1)

    def spread(vector: Tensor | None) -> Tensor | None:
        if vector is None:
            return None
        each = vector.reshape(-1, *[1] * (x.ndim - 2))
        return each.expand(x.shape[1:]).reshape(groups, -1)

    affine = {name: spread(inputs[name]) for name in ("weight", "bias")}
    return {"x": rows, **affine, "eps": inputs["eps"]}
