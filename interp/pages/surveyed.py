"""From a text to cards of a dictionary's features: what pages and files have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ...model.transformer import HookedTransformer
from ..activations import Packing, TextSource
from ..activations.documents import Split
from ..dictionaries import Dictionary
from ..examples.survey import FeatureSurvey
from .cards import Card, CardMaker
from .survey_cards import survey_card

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done, and how much there is."""


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """Returns what reports one stage; None where nothing is reported."""
    if progress is None:
        return None
    report = progress
    return lambda done, total: report(name, done, total)


def sequences_of(
    model: HookedTransformer, source: TextSource, split: Split, packing: Packing | None
) -> Iterator[list[int]]:
    """Returns the sequences of a text, as long as fits the model unless `packing` says otherwise.

    Raises ValueError for a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise ValueError("features: this model was loaded without a tokenizer")
    rule = packing or Packing(min(256, model.config.n_ctx))
    return rule.sequences(source.documents(split), model.tokenizer)


def surveyed_cards(
    model: HookedTransformer,
    dictionary: Dictionary,
    found: FeatureSurvey,
    features: Sequence[int],
) -> Iterator[Card]:
    """Yields the card of each feature: what it promotes, and where it fired."""
    assert model.tokenizer is not None
    strings = model.tokenizer.token_strings(range(model.config.d_vocab))
    for card in CardMaker(model, dictionary, None).cards(features):
        yield {**card, **survey_card(found, card["id"], strings)}
