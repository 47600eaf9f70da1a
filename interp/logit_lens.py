"""The logit lens (nostalgebraist 2020): what each layer would say next.

Tensor names: L rows (the embedding and each layer), P positions, V vocabulary, d d_model, m tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..model.text.prompts import Tokens
from ..model.transformer import HookedTransformer


@dataclass(frozen=True, eq=False)
class LogitLens:
    """The likeliest next tokens after every layer.

    Attributes:
        names: Of the L rows: "embed", then the layers' numbers. The last one is the model itself.
        tokens: int64 [L, P, m], the likeliest first.
        probabilities: fp32 [L, P, m].
    """

    names: tuple[str, ...]
    tokens: torch.Tensor
    probabilities: torch.Tensor


@torch.no_grad()
def logit_lens(model: HookedTransformer, prompt: Tokens, *, n_tokens: int = 5) -> LogitLens:
    """Returns what each layer's residual stream says through the final norm and the unembedding.

    Args:
        prompt: One text, or its ids [P] or [1, P].
        n_tokens: How many of the likeliest tokens to keep.

    Raises ValueError for more than one sequence.
    """
    n_layers = model.config.n_layers
    stream = ["hook_embed", *(f"blocks.{i}.hook_resid_post" for i in range(n_layers))]
    _, cache = model.run_with_cache(prompt, names_filter=stream, return_type=None)
    tokens, probabilities = [], []
    for name in stream:
        if len(cache[name]) != 1:
            raise ValueError(f"logit_lens: expected one sequence, got {len(cache[name])}")
        logits_PV = model.unembed(model.ln_final(cache[name][0]))
        if model.soft_cap is not None:
            logits_PV = model.soft_cap(logits_PV)
        top = torch.softmax(logits_PV.float(), dim=-1).topk(n_tokens, dim=-1)
        tokens.append(top.indices)
        probabilities.append(top.values)
    names = ("embed", *map(str, range(n_layers)))
    return LogitLens(names, torch.stack(tokens), torch.stack(probabilities))
