"""The page of a whole dictionary: search, and every feature's card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...model.transformer import HookedTransformer
from ..activations import Packing, TextSource, open_text
from ..activations.documents import Split, Text
from ..dictionaries import Dictionary, check_fits
from ..examples.survey import FeatureSurvey, survey_features
from .cards import SHARD, Card, about, in_shards
from .labels import Labels, labels_of
from .names import shown_name
from .page import Page, shard
from .prompt_page import described
from .surveyed import Progress, sequences_of, stage, surveyed_cards

N_TOKENS, N_AGAINST = 500_000, 16_384


def feature_page(
    model: HookedTransformer,
    dictionary: Dictionary,
    *,
    text: Text | TextSource = None,
    split: Split = "held_out",
    n_tokens: int = N_TOKENS,
    packing: Packing | None = None,
    against: HookedTransformer | None = None,
    n_against: int = N_AGAINST,
    labels: Labels = None,
    progress: Progress | None = None,
) -> Page:
    """Returns the page of a dictionary, from one pass over a text.

    Args:
        text: None takes the text of `evaluate`; `split` says which of its documents.
        n_tokens: Tokens to read; fewer where the text ends.
        against: The same model under another policy, which reads `n_against` of the tokens: how
            much of each feature's firing survives is shown.
        labels: A file, labels by feature, or a function of a card.

    Raises:
        ValueError: a model without tokenizer, or a text without a document that is long enough.
        DictionaryError: a dictionary that does not fit the model.
    """
    check_fits(dictionary, model)
    source = text if isinstance(text, TextSource) else open_text(text)
    sequences = list(sequences_of(model, source, split, packing))
    found = survey_features(
        model, dictionary, sequences, n_tokens=n_tokens, progress=stage(progress, "text")
    )
    cards = _cards(model, dictionary, found, progress)
    if against is not None:
        other = survey_features(
            against,
            dictionary,
            sequences,
            n_tokens=min(n_against, found.n_tokens),
            progress=stage(progress, against.ops.policy.name),
        )
        _compare(cards, found, other, against.ops.policy.name)
    return _page(model, dictionary, cards, labels_of(labels, cards), source.name, found.n_tokens)


def _cards(
    model: HookedTransformer,
    dictionary: Dictionary,
    found: FeatureSurvey,
    progress: Progress | None,
) -> list[Card]:
    count = stage(progress, "features")
    n = dictionary.cfg.d_sae
    cards = []
    for feature, card in enumerate(surveyed_cards(model, dictionary, found, range(n))):
        cards.append(card)
        if count is not None and feature % SHARD == 0:
            count(feature, n)
    short = [about(card) for card in cards]
    for card in cards:
        pairs = card.get("neighbours", [])
        card["neighbours"] = [(f, share, short[f]) for f, share in pairs]
    return cards


def _compare(cards: Sequence[Card], a: FeatureSurvey, b: FeatureSurvey, name: str) -> None:
    """Adds to each card how often its feature fires in both of two runs of the same tokens."""
    n = b.n_tokens
    for card in cards:
        here, there = a.of(card["id"])[0], b.of(card["id"])[0]
        here = here[here < n]
        kept = int(torch.isin(here, there).sum())
        gained = len(there) - kept
        card["stability"] = {"name": name, "fired": len(here), "kept": kept, "gained": gained}


def _page(
    model: HookedTransformer,
    dictionary: Dictionary,
    cards: Sequence[Card],
    labels: dict[int, dict[str, str]],
    text: str,
    n_tokens: int,
) -> Page:
    parts = in_shards(cards)
    density = [card["density"] for card in cards]
    index = {
        "density": density,
        "by_density": sorted(range(len(cards)), key=lambda f: -density[f]),
        "about": [about(card) for card in cards],
        "texts": [_searched(card) for card in cards],
    }
    described_: dict[str, Any] = {
        **described(dictionary),
        "first_shard": 0,
        "shard_size": SHARD,
        "index_shard": len(parts),
        "labels": labels,
    }
    dead = sum(d == 0 for d in density)
    data = {
        "view": "features",
        "model": shown_name(model),
        "facts": [f"{n_tokens:,} tokens of {text}", f"{dead:,} never fired"],
        "dictionaries": [described_],
    }
    shards = (*(shard(part) for part in parts), shard(index))
    return Page(f"{dictionary.cfg.hook_name} · bitlens features", data, shards)


def _searched(card: Card) -> str:
    """What a search looks through: a feature's best examples, and what it promotes."""
    examples = ["".join(example["t"]) for example in card["examples"][:4]]
    return "\n".join([*examples, *(token for token, _ in card["promoted"])])
