"""The tokens that a feature promotes and suppresses.

Shapes: F features, d d_model, V vocabulary, m tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary, kernels

_CHUNK = 1024


class LogitEffects(NamedTuple):
    """Tokens and what a feature at activation 1 adds to their logits, [F, m] each.

    The final norm's division is left out, so effects of one dictionary can be compared, not summed.
    """

    values: torch.Tensor
    indices: torch.Tensor


def logit_effects(
    model: HookedTransformer,
    dictionary: Dictionary,
    features: Sequence[int] | None = None,
    n_tokens: int = 8,
) -> tuple[LogitEffects, LogitEffects]:
    """Returns what features do to the logits that they raise most, and to those they lower most.

    That is a feature's direct effect: its decoder row times the final norm's weight, through the
    unembedding. What later layers make of it is left out.

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
        best.append(logits.topk(n_tokens, dim=1))
        least.append(logits.topk(n_tokens, dim=1, largest=False))
    return _joined(best), _joined(least)


def promoted_tokens(
    model: HookedTransformer,
    dictionary: Dictionary,
    features: Sequence[int] | None = None,
    n_tokens: int = 8,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the tokens that features raise most and lower most, int32 [F, m] each.

    Arguments, and what is raised, are those of `logit_effects`.
    """
    best, least = logit_effects(model, dictionary, features, n_tokens)
    return best.indices, least.indices


def _joined(found: Sequence[torch.return_types.topk]) -> LogitEffects:
    values = torch.cat([each.values for each in found])
    return LogitEffects(values, torch.cat([each.indices for each in found]).to(torch.int32))
