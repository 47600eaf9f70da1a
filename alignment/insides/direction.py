"""The direction along which a model tells what it refuses from what it answers, and its ablation.

Difference of means, after Arditi et al., arXiv:2406.11717. On the stand-in alone, and by hooks: no
weights without the direction are made, so that none can be saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ...model.hooks.registry import HookPoint, Hooks
from ...model.transformer import HookedTransformer
from ..standin import StandIn
from .movement import last_streams
from .preference import refusal_lead


@dataclass(frozen=True)
class Ablation:
    """The lead of refusals with a direction and without it.

    Attributes:
        random: Without a random direction of the same hook points: what any ablation does.
    """

    lead: float
    ablated: float
    random: float


def refusal_direction(
    model: HookedTransformer,
    refused: Sequence[StandIn],
    answered: Sequence[StandIn],
    layer: int,
) -> torch.Tensor:
    """Returns the unit vector, fp64 [d], from the mean stream of prompts that are to be answered to
    that of those to be refused, behind a block, at their last tokens.

    Raises ValueError for no prompts on a side, equal means, or a block that is none.
    """
    if not 0 <= layer < model.config.n_layers:
        raise ValueError(f"layer = {layer}: there are {model.config.n_layers} blocks")
    if not refused or not answered:
        raise ValueError("insides: both kinds of prompts are needed")
    means = [
        last_streams(model, [row.text for row in rows])[layer].mean(0)
        for rows in (refused, answered)
    ]
    gap = means[0] - means[1]
    if not bool(gap.any()):
        raise ValueError("insides: the two means are equal: there is no direction")
    unit: torch.Tensor = gap / gap.norm()
    return unit


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Returns the cosine of two directions."""
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@contextmanager
def without_direction(model: HookedTransformer, direction: torch.Tensor) -> Iterator[None]:
    """Takes a direction out of the residual stream behind every block, for the passes of this block
    of code."""

    def remove(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        unit = direction.to(tensor.dtype)
        return tensor - (tensor @ unit)[..., None] * unit

    names = [f"blocks.{i}.hook_resid_post" for i in range(model.config.n_layers)]
    hooks: Hooks = [(name, remove) for name in names]
    with model.hooks(hooks):
        yield


def ablate(
    model: HookedTransformer,
    direction: torch.Tensor,
    rows: Sequence[StandIn],
    seed: int = 0,
) -> Ablation:
    """Returns what is left of the lead of refusals without a direction, beside a random one.

    Args:
        rows: Stand-in prompts; there is no way to ask with others.

    Raises TypeError for prompts that are not the stand-in's.
    """
    if not all(isinstance(row, StandIn) for row in rows):
        raise TypeError("ablate: a refusal direction is ablated on the stand-in alone")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    other = torch.randn(len(direction), generator=generator, dtype=torch.float64, device="cpu")
    leads = []
    for unit in (direction, other / other.norm()):
        with without_direction(model, unit):
            leads.append(refusal_lead(model, rows))
    return Ablation(refusal_lead(model, rows), *leads)
