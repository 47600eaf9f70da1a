"""A JSON file a feature, as the front ends of circuit-tracer and Neuronpedia read them.

A graph's node names its feature by Cantor's number of layer and feature; the front end looks for
`<number>.json` in the folder of the transcoders (`scan`). Shapes: E activations of one feature.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...model.transformer import HookedTransformer
from ...model.weights.atomic import write_json
from ..activations import Packing, TextSource, open_text
from ..activations.documents import Split, Text
from ..circuits.graph_json import pair
from ..dictionaries import Dictionary, check_fits
from ..examples.examples import STEPS
from ..examples.survey import FeatureSurvey, survey_features
from .cards import Card, CardMaker
from .survey_cards import survey_card

BINS = 50

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done, and how much there is."""


def export_features(
    model: HookedTransformer,
    dictionary: Dictionary,
    folder: str | Path,
    *,
    text: Text | TextSource = None,
    split: Split = "held_out",
    n_tokens: int = 500_000,
    packing: Packing | None = None,
    progress: Progress | None = None,
) -> int:
    """Writes a file for every feature that fires on a text; returns how many.

    Each holds examples by quantile, tokens promoted and suppressed, a histogram and how often the
    feature fires, in the fields of circuit-tracer's `frontend.feature_models.Model`.

    Args:
        folder: Made where it is missing; files of other features in it stay.
        text: None takes the text of `evaluate`; `split` says which of its documents.
        n_tokens: Tokens to read; fewer where the text ends.

    Raises:
        ValueError: a model without tokenizer, a dictionary whose hook is in no block, or a text
            without a document that is long enough.
        DictionaryError: a dictionary that does not fit the model.
        OSError: a folder that cannot be written to.
    """
    if model.tokenizer is None:
        raise ValueError("export_features: this model was loaded without a tokenizer")
    check_fits(dictionary, model)
    layer = _layer(dictionary.cfg.hook_name)
    source = text if isinstance(text, TextSource) else open_text(text)
    rule = packing or Packing(min(256, model.config.n_ctx))
    found = survey_features(
        model,
        dictionary,
        rule.sequences(source.documents(split), model.tokenizer),
        n_tokens=n_tokens,
        progress=None if progress is None else lambda done, total: progress("text", done, total),
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    strings = model.tokenizer.token_strings(range(model.config.d_vocab))
    fired = found.indptr.diff().nonzero()[:, 0].tolist()
    promoted = CardMaker(model, dictionary, None).cards(fired)
    for number, (feature, logits) in enumerate(zip(fired, promoted, strict=True)):
        card = {**logits, **survey_card(found, feature, strings)}
        index = pair(layer, feature)
        described = {"transcoder_id": dictionary.cfg.hook_name, "index": index}
        write_json(folder / f"{index}.json", described | _fields(found, card))
        if progress is not None:
            progress("features", number + 1, len(fired))
    return len(fired)


def _layer(hook: str) -> int:
    parts = hook.split(".")
    if parts[0] != "blocks":
        raise ValueError(f"export_features: {hook} is in no block, so its features have no number")
    return int(parts[1])


def _fields(found: FeatureSurvey, card: Card) -> dict[str, Any]:
    _, values_E = found.of(card["id"])
    largest = card["largest"]
    quantiles, begin = [], 0
    for name, length in card["bands"]:
        examples = [_example(e, largest) for e in card["examples"][begin : begin + length]]
        quantiles.append({"quantile_name": name, "examples": examples})
        begin += length
    cuts = torch.arange(1, 101, dtype=torch.float64, device="cpu") / 100
    return {
        "examples_quantiles": quantiles,
        "top_logits": [token for token, _ in card["promoted"]],
        "bottom_logits": [token for token, _ in card["suppressed"]],
        "act_min": 0.0,
        "act_max": largest,
        "quantile_values": torch.quantile(values_E.double(), cuts).tolist(),
        "histogram": _histogram(values_E, largest),
        "activation_frequency": card["density"],
    }


def _example(example: dict[str, Any], largest: float) -> dict[str, Any]:
    return {
        "tokens": example["t"],
        "tokens_acts_list": [step * largest / STEPS for step in example["a"]],
        "train_token_ind": example["p"],
        "is_repeated_datapoint": False,
    }


def _histogram(values_E: torch.Tensor, largest: float) -> list[float]:
    """Counts in bins of equal width from 0 to the largest activation."""
    bins = (values_E.double() / largest * BINS).floor().long().clamp(max=BINS - 1)
    return [float(count) for count in torch.bincount(bins, minlength=BINS).tolist()]
