"""The movement of each layer by training: its weights, and its stream on the same prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...model.transformer import HookedTransformer

MATRICES = ("W_Q", "W_K", "W_V", "W_O", "W_gate", "W_in", "W_out")
"""A block's matrices, by TransformerLens's names."""


@dataclass(frozen=True)
class LayerMovement:
    """One block before and after.

    Attributes:
        weights: |after - before| / |before| over all of its matrices.
        stream: The same of the residual stream behind it, at the prompts' last tokens.
        cosine: Mean cosine of the two streams there.
    """

    layer: int
    weights: float
    stream: float
    cosine: float


def movement(
    before: HookedTransformer, after: HookedTransformer, prompts: Sequence[str]
) -> list[LayerMovement]:
    """Returns the movement of every block, in order.

    Raises ValueError for models of different shapes, or no prompts.
    """
    if before.config != after.config:
        raise ValueError("insides: the two models have different configs")
    if not prompts:
        raise ValueError("insides: no prompts")
    changed = _weights(before, after)
    old, new = last_streams(before, prompts), last_streams(after, prompts)
    found = []
    for layer, (a, b) in enumerate(zip(old, new, strict=True)):
        cosines = torch.nn.functional.cosine_similarity(a, b, dim=1)
        stream = math.sqrt(_squares(b - a) / _squares(a))
        found.append(LayerMovement(layer, changed[layer], stream, float(cosines.mean())))
    return found


def last_streams(model: HookedTransformer, prompts: Sequence[str]) -> list[torch.Tensor]:
    """Returns the residual stream behind each block at each prompt's last token, fp64 [B, d]."""
    names = [f"blocks.{i}.hook_resid_post" for i in range(model.config.n_layers)]
    kept: list[list[torch.Tensor]] = [[] for _ in names]
    with torch.no_grad():
        for prompt in prompts:
            _, cache = model.run_with_cache(prompt, names, pos_slice=-1, return_type=None)
            for layer, name in enumerate(names):
                kept[layer].append(cache[name].reshape(-1).double())
    return [torch.stack(each) for each in kept]


def _weights(before: HookedTransformer, after: HookedTransformer) -> list[float]:
    n = before.config.n_layers
    moved, size = [0.0] * n, [0.0] * n
    for name in MATRICES:
        old, new = getattr(before, name).detach(), getattr(after, name).detach()
        for layer in range(n):
            a, b = old[layer].double(), new[layer].double()
            moved[layer] += _squares(b - a)
            size[layer] += _squares(a)
    return [math.sqrt(m / s) for m, s in zip(moved, size, strict=True)]


def _squares(x: torch.Tensor) -> float:
    """The sum of squares by numpy, whose order no number of threads changes."""
    return float(np.square(x.numpy()).sum())
