"""A JSON file a feature, as the front ends of circuit-tracer and Neuronpedia read them.

A graph's node names its feature by Cantor's number of layer and feature; the front end looks for
`<number>.json` in the folder of the transcoders (`scan`). Shapes: E activations of one feature.
"""

from __future__ import annotations

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
from .cards import Card
from .surveyed import Progress, sequences_of, stage, surveyed_cards

BINS = 50


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
    check_fits(dictionary, model)
    layer = _layer(dictionary.cfg.hook_name)
    source = text if isinstance(text, TextSource) else open_text(text)
    found = survey_features(
        model,
        dictionary,
        sequences_of(model, source, split, packing),
        n_tokens=n_tokens,
        progress=stage(progress, "text"),
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fired = found.indptr.diff().nonzero()[:, 0].tolist()
    count = stage(progress, "features")
    for number, card in enumerate(surveyed_cards(model, dictionary, found, fired)):
        index = pair(layer, card["id"])
        described = {"transcoder_id": dictionary.cfg.hook_name, "index": index}
        write_json(folder / f"{index}.json", described | _fields(found, card))
        if count is not None:
            count(number + 1, len(fired))
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
