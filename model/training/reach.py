"""Measures how far a model reaches: its loss by position, and what it finds by length and depth.

Made for `train(..., evaluate=)`, which asks before the first step and after the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch

from ..text.prompts import Prompt, require_tokenizer
from ..transformer import HookedTransformer
from .fixed_math import total
from .loss_node import array

Needles = Mapping[str, Sequence[tuple[Prompt, str]]]
"""Prompts with the answers that stand in them, by name, such as "512 tokens, depth 50%"."""


def reach(
    *, texts: Sequence[str] = (), bands: Sequence[int] = (), needles: Needles | None = None
) -> Callable[[HookedTransformer], dict[str, float]]:
    """Returns a function of a model that measures both, for `train(..., evaluate=)`.

    Its numbers are "loss, positions A to B" and "found, NAME".

    Args:
        texts: Long texts. For what short texts lose, hold some out of the run's data, or compare
            the first band.
        bands: As `loss_by_position`.
        needles: As `retrieval`.
    """

    def measured(model: HookedTransformer) -> dict[str, float]:
        losses = loss_by_position(model, texts, bands) if texts else {}
        shares = retrieval(model, needles) if needles else {}
        return {
            **{f"loss, positions {a} to {b}": loss for (a, b), loss in losses.items()},
            **{f"found, {name}": share for name, share in shares.items()},
        }

    return measured


@torch.no_grad()
def loss_by_position(
    model: HookedTransformer, texts: Sequence[str], bands: Sequence[int]
) -> dict[tuple[int, int], float]:
    """Returns the mean of -ln p over the tokens of each band of positions.

    Args:
        texts: Cut where the context ends.
        bands: Where bands begin, ascending from 1 or more; the last ends with the longest text. A
            band is named by its first and last position.

    Raises ValueError for bands in another order, and for one that no text reaches.
    """
    if not bands or bands[0] < 1 or any(a >= b for a, b in itertools.pairwise(bands)):
        raise ValueError(f"bands = {list(bands)}: expected ascending positions from 1 on")
    tokenizer = require_tokenizer(model.tokenizer)
    rows = [
        tokenizer.encode(text, add_bos=tokenizer.prepends_bos)[: model.config.n_ctx]
        for text in texts
    ]
    longest = max(map(len, rows), default=0)
    if bands[-1] >= longest:
        raise ValueError(f"bands: no text reaches position {bands[-1]}; the longest has {longest}")
    ends = [*bands[1:], longest]
    losses: list[list[float]] = [[] for _ in bands]
    for row in rows:
        tokens = torch.tensor([row], dtype=torch.int64, device="cpu")
        each = array(-model.logprobs(tokens, prepend_bos=False)[0])
        for begin, end, kept in zip(bands, ends, losses, strict=True):
            kept += each[begin:end].tolist()
    return {
        (begin, end - 1): total(kept) / len(kept)
        for begin, end, kept in zip(bands, ends, losses, strict=True)
    }


def retrieval(model: HookedTransformer, needles: Needles) -> dict[str, float]:
    """Returns the share of prompts, by name, that the greedy continuation answers.

    An answer counts if the continuation, without blanks before it, begins with it.

    Raises ValueError for a name without prompts, and for a prompt beyond the context.
    """
    tokenizer, shares = require_tokenizer(model.tokenizer), {}
    for name, cases in needles.items():
        if not cases:
            raise ValueError(f"needles: {name!r} has no prompts")
        right = 0
        for prompt, answer in cases:
            room = len(tokenizer.encode(f" {answer}"))
            (text,) = model.generate(prompt, max_new_tokens=room).text
            right += text.strip().startswith(answer)
        shares[name] = right / len(cases)
    return shares
