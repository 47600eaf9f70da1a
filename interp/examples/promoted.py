"""The tokens that a feature promotes and suppresses.

Shapes: F features, d d_model, V vocabulary, m tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary, kernels

_CHUNK = 1024


def promoted_tokens(
    model: HookedTransformer,
    dictionary: Dictionary,
    features: Sequence[int] | None = None,
    n_tokens: int = 8,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the tokens that features raise most and lower most, int32 [F, m] each.

    What is ranked is a feature's direct effect on the logits: its decoder row times the final
    norm's weight, through the unembedding. What later layers make of it is left out.

    Args:
        features: Which; None takes all.

    Raises ValueError for a dictionary that does not write to the residual stream.
    """
    if dictionary.cfg.d_out != model.config.d_model:
        raise ValueError(
            f"{dictionary.cfg.hook_name_out} is no residual stream: its features have no direct "
            "effect on the logits"
        )
    rows = dictionary.W_dec.detach().float()
    rows = rows if features is None else rows[list(features)]
    rows = rows * model.ln_final.weight.detach().float()
    unembedding = model.W_U.T.float().contiguous()
    best, least = [], []
    for start in range(0, len(rows), _CHUNK):
        logits = kernels.dense(rows[start : start + _CHUNK], unembedding, None)
        best.append(logits.topk(n_tokens, dim=1).indices)
        least.append(logits.topk(n_tokens, dim=1, largest=False).indices)
    return torch.cat(best).to(torch.int32), torch.cat(least).to(torch.int32)
