"""The facts that a page shows of a feature, as JSON.

A card has `id`, `density`, `largest`, `promoted` and `suppressed` (pairs of token and effect on its
logit), and `examples`: tokens `t`, activations `a` in 255 steps of the largest, index `p` of the
peak. Where a dictionary was surveyed, `bands` (name and number of consecutive examples), `mean`,
`histogram`, `neighbours` and `stability` come on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary
from ..examples import Examples, logit_effects
from ..examples.examples import STEPS

SHARD = 64
"""Cards of a shard."""

Card = dict[str, Any]


@dataclass(frozen=True, eq=False)
class CardMaker:
    """Makes the cards of one dictionary.

    Attributes:
        examples: None where none are kept beside the dictionary.
    """

    model: HookedTransformer
    dictionary: Dictionary
    examples: Examples | None

    def cards(self, features: Sequence[int]) -> list[Card]:
        """Returns a card for each feature."""
        pairs = self._logits(features)
        return [self._card(f, *pair) for f, pair in zip(features, pairs, strict=True)]

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """Returns the texts of tokens; their numbers without a tokenizer."""
        tokenizer = self.model.tokenizer
        return [str(i) for i in ids] if tokenizer is None else tokenizer.token_strings(ids)

    def _logits(self, features: Sequence[int]) -> list[tuple[list[Any], list[Any]]]:
        if self.dictionary.cfg.d_out != self.model.config.d_model or not features:
            return [([], []) for _ in features]
        best, least = logit_effects(self.model, self.dictionary, features)
        return [
            (
                self._pairs(best.indices[i], best.values[i]),
                self._pairs(least.indices[i], least.values[i]),
            )
            for i in range(len(features))
        ]

    def _pairs(self, ids: torch.Tensor, values: torch.Tensor) -> list[tuple[str, float]]:
        strings = self.token_strings(ids.tolist())
        return [(s, round(v, 4)) for s, v in zip(strings, values.tolist(), strict=True)]

    def _card(self, feature: int, promoted: list[Any], suppressed: list[Any]) -> Card:
        card: Card = {
            "id": feature,
            "promoted": promoted,
            "suppressed": suppressed,
            "largest": 0.0,
            "examples": [],
        }
        if self.examples is None:
            return card
        card["density"] = float(self.examples.density[feature])
        card["largest"] = float(self.examples.largest[feature])
        scale = card["largest"] / STEPS or 1.0
        card["examples"] = [
            {
                "t": self.token_strings(example.tokens),
                "a": [round(a / scale) for a in example.activations],
                "p": example.peak,
            }
            for example in self.examples.of(feature)
        ]
        return card


About = tuple[list[str], list[str]]
"""The tokens that a feature fires on, and those that it promotes: a few of each, legible ones."""


def about(card: Card) -> About:
    """Returns what a card's feature is about, in few words."""
    peaks = [example["t"][example["p"]] for example in card["examples"][:5]]
    return _legible(peaks)[:3], _legible(token for token, _ in card["promoted"])[:4]


def _legible(tokens: Iterable[str]) -> list[str]:
    """Tokens without their spaces, each once, and none that is half a character."""
    shown = (token.strip() for token in tokens)
    return list(
        dict.fromkeys(
            t for t in shown if t.isprintable() and t and "\N{REPLACEMENT CHARACTER}" not in t
        )
    )


def in_shards(cards: Sequence[Card]) -> list[Sequence[Card]]:
    """Returns the cards in runs of 64, as a page keeps them."""
    return [cards[i : i + SHARD] for i in range(0, len(cards), SHARD)]
