"""The lead of refusals: how much likelier than answers they are, and in which block that sits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...model.transformer import HookedTransformer
from ..standin import StandIn, answer, refusal
from .exchange import exchange_ids

Logits = Callable[[torch.Tensor], torch.Tensor]
"""Logits [1, P, V] of ids [1, P]."""


@dataclass(frozen=True)
class Swap:
    """One block of the trained model, replaced by the untrained one's.

    Attributes:
        lead: The mean lead of refusals then.
        restored: The share of what training added to the lead that the old block takes back: 1
            where all of it sits there; a sum over blocks need not be 1.
    """

    layer: int
    lead: float
    restored: float


@dataclass(frozen=True)
class Swaps:
    """The lead of refusals before and after training, and with each block swapped."""

    before: float
    after: float
    blocks: tuple[Swap, ...]


def refusal_lead(
    model: HookedTransformer, rows: Sequence[StandIn], logits: Logits | None = None
) -> float:
    """Returns ln p(refusal) - ln p(answer), a token's mean each, averaged over stand-in prompts.

    Args:
        logits: In place of the model's own.

    Raises ValueError for no prompts, or a model without a tokenizer.
    """
    if not rows:
        raise ValueError("insides: no prompts")
    run = logits or model.forward
    with torch.no_grad():
        leads = [
            _mean_logprob(model, run, row, refusal(row))
            - _mean_logprob(model, run, row, answer(row))
            for row in rows
        ]
    return sum(leads) / len(leads)


def swap_blocks(
    before: HookedTransformer, after: HookedTransformer, rows: Sequence[StandIn]
) -> Swaps:
    """Returns what each block of the untrained model does in the place of the trained one's.

    A swapped pass is `after` up to the block, `before`'s block, and `after` from there on: the bits
    of a model whose block had the old weights. Raises ValueError as `refusal_lead`, and for models
    of different shapes.
    """
    if before.config != after.config:
        raise ValueError("insides: the two models have different configs")
    first, last = refusal_lead(before, rows), refusal_lead(after, rows)
    found = []
    for layer in range(after.config.n_layers):
        lead = refusal_lead(after, rows, _swapped(before, after, layer))
        gain = last - first
        found.append(Swap(layer, lead, (last - lead) / gain if gain else 0.0))
    return Swaps(first, last, tuple(found))


def _swapped(before: HookedTransformer, after: HookedTransformer, layer: int) -> Logits:
    def run(tokens: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = after(tokens, stop_at_layer=layer)
        x = before(x, start_at_layer=layer, stop_at_layer=layer + 1)
        found: torch.Tensor = after(x, start_at_layer=layer + 1)
        return found

    return run


def _mean_logprob(model: HookedTransformer, run: Logits, row: StandIn, said: str) -> float:
    prompt, answer = exchange_ids(model, row.text, said)
    logits = run(torch.tensor([[*prompt, *answer]], device="cpu"))[0, len(prompt) - 1 : -1]
    logprobs = torch.log_softmax(logits.double(), 1)
    chosen = torch.tensor(answer, device="cpu")[:, None]
    return float(logprobs.gather(1, chosen).mean())
