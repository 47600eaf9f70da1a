"""The tokens that a lens reads in a prompt.

Tensor names: L layers, P positions, V vocabulary, m tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...model.text.prompts import Tokens
from .lens import LogitLens


@dataclass(frozen=True, eq=False)
class LensReading:
    """The likeliest next tokens after every layer.

    Attributes:
        tokens: int64 [L, P, m], the likeliest first; the last layer's are the model's own.
        probabilities: fp32 [L, P, m].
    """

    tokens: torch.Tensor
    probabilities: torch.Tensor


def read_lens(lens: LogitLens, prompt: Tokens, *, n_tokens: int = 5) -> LensReading:
    """Returns what each layer's residual stream says through a lens.

    Args:
        prompt: One text, or its ids [P] or [1, P].
        n_tokens: How many of the likeliest tokens to keep.

    Raises ValueError for more than one sequence.
    """
    model = lens.model
    stream = [f"blocks.{i}.hook_resid_post" for i in range(model.config.n_layers)]
    with torch.no_grad():
        _, cache = model.run_with_cache(prompt, names_filter=stream, return_type=None)
    tokens, probabilities = [], []
    for layer, name in enumerate(stream):
        if len(cache[name]) != 1:
            raise ValueError(f"read_lens: expected one sequence, got {len(cache[name])}")
        logits_PV = lens.logits(cache[name][0], layer)
        top = torch.softmax(logits_PV.float(), dim=-1).topk(n_tokens, dim=-1)
        tokens.append(top.indices)
        probabilities.append(top.values)
    return LensReading(torch.stack(tokens), torch.stack(probabilities))
