"""A convolution's windows, as the factors of one matrix product a group.

N rows, G groups, C channels in, O channels out, L positions in, P positions out, K taps.
"""

from __future__ import annotations

from typing import Any

import torch

from ...inputs import Inputs

Tensor = torch.Tensor


def as_product(inputs: Inputs) -> dict[str, Any]:
    """Returns a [N, G, P, C/G * K], b [G, C/G * K, O/G] and bias [G, 1, O/G] or None."""
    x_NCL, weight_OCK, groups = inputs["x"], inputs["weight"], inputs["groups"]
    rows, out, taps = x_NCL.shape[0], weight_OCK.shape[0], weight_OCK.shape[-1]
    padded = torch.nn.functional.pad(x_NCL.double(), inputs["padding"])
    span = (taps - 1) * inputs["dilation"] + 1
    windows = padded.unfold(-1, span, inputs["stride"])[..., :: inputs["dilation"]]
    windows = windows.reshape(rows, groups, -1, *windows.shape[2:]).movedim(-2, 2)
    filters = weight_OCK.reshape(groups, out // groups, -1).mT
    bias = inputs["bias"]
    return {
        "a": windows.reshape(*windows.shape[:3], -1),
        "b": filters,
        "bias": None if bias is None else bias.reshape(groups, 1, -1),
    }


def from_product(y: Tensor) -> Tensor:
    """[N, G, P, O/G] as [N, O, P]."""
    return y.mT.flatten(1, 2)
