"""A factor on a dictionary's input, folded into its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

_BY = {"W_enc": 1, "W_dec": -1, "b_dec": -1}
"""The power of the factor that each tensor is multiplied by."""


def fold_input_scale(tensors: Mapping[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """Returns weights that read x where these read scale * x, with the same pre-activations and
    with reconstructions of x instead of scale * x.

    b_dec is one of them, both where it is taken from the input and where it is added to the output
    (SAELens#354 forgot it); encoder biases and thresholds stay. Matrices come out in fp32, unless
    the factor is a power of two, which moves no bit of them.
    """
    folded = dict(tensors)
    for name, power in _BY.items():
        x, factor = folded[name], scale if power > 0 else 1 / scale
        exact = math.frexp(factor)[0] == 0.5
        folded[name] = x * factor if exact else (x.double() * factor).float()
    return folded
