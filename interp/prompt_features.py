"""The features of a prompt, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..model.transformer import HookedTransformer
from .activations.read import OUTLIER_FACTOR, row_norms
from .dictionaries import Dictionary


@dataclass(frozen=True)
class TokenFeatures:
    """The strongest features of one token.

    Attributes:
        position: Of the token in the prompt.
        token: Its text.
        features: Pairs of feature and activation, the strongest first.
        is_outlier: Whether the row's norm exceeds 3 times the prompt's median, as the first
            position's does in most models: dictionaries are not trained on such rows.
    """

    position: int
    token: str
    features: list[tuple[int, float]]
    is_outlier: bool


def prompt_features(
    model: HookedTransformer, dictionary: Dictionary, prompt: str, *, top: int = 5
) -> list[TokenFeatures]:
    """Returns the strongest features of each token of a prompt.

    Raises ValueError for an empty prompt.
    """
    hook = dictionary.cfg.hook_name
    tokens = model.to_tokens(prompt)
    _, cache = model.run_with_cache(tokens, names_filter=hook, return_type=None)
    rows = cache[hook][0].flatten(1)
    norms = row_norms(rows)
    outlying = (norms > OUTLIER_FACTOR * norms.median()).tolist()
    acts = dictionary.encode(rows)
    best = torch.sort(acts, dim=1, descending=True, stable=True)
    strings = model.to_str_tokens(prompt)
    found = []
    for position, text in enumerate(strings):
        values, indices = best.values[position, :top], best.indices[position, :top]
        pairs = [(int(f), float(a)) for f, a in zip(indices, values, strict=True) if a > 0]
        found.append(TokenFeatures(position, text, pairs, outlying[position]))
    return found
