"""Features that differ between better and worse answers: those that are planted, and no others."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bitlens.alignment.draws import draw_seed
from bitlens.alignment.insides import changed_features
from bitlens.alignment.preferences import AnswerPair, read_pairs
from bitlens.alignment.standin import answer, prompts, refusal
from bitlens.interp.dictionaries import Dictionary
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from support.random_dictionaries import random_dictionary
from support.standin_model import speaking_checkpoint

HOOK = "blocks.0.hook_resid_pre"


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return load(speaking_checkpoint())


@pytest.fixture(scope="module")
def dictionary(model: HookedTransformer) -> Dictionary:
    return random_dictionary(model, HOOK)


def _pairs(n: int = 30) -> list[AnswerPair]:
    rows = prompts("standin", n, seed=0)
    return read_pairs(
        [
            {"prompt": row.text, "id": row.id, "chosen": refusal(row), "rejected": answer(row)}
            for row in rows
        ]
    )


def _strongest(model: HookedTransformer, dictionary: Dictionary, text: str) -> torch.Tensor:
    """At the embedding a token's features depend on nothing before it."""
    ids = model.to_tokens(text, prepend_bos=False)
    _, cache = model.run_with_cache(ids, HOOK, return_type=None)
    return dictionary.encode(cache[HOOK][0]).amax(0)


def test_what_refusals_alone_say_is_found(model: HookedTransformer, dictionary: Dictionary) -> None:
    pairs = _pairs()
    found = changed_features(model, dictionary, pairs, top=48)
    assert found.n == len(pairs)
    assert 0 < found.n_changed == len(found.features) <= found.n_tested <= 48
    sizes = [abs(each.difference) for each in found.features]
    assert sizes == sorted(sizes, reverse=True)
    for each in found.features[:3]:
        means = [
            float(torch.stack([_strongest(model, dictionary, t)[each.feature] for t in texts])
                  .double().mean())
            for texts in zip(*(_sides(pair) for pair in pairs), strict=True)
        ]  # fmt: skip
        assert means == pytest.approx([each.chosen, each.rejected], rel=1e-6)
        assert each.low * each.high > 0
        assert each.difference == pytest.approx(means[0] - means[1], rel=1e-6)
        assert each.low <= each.difference <= each.high


def _sides(pair: AnswerPair) -> tuple[str, str]:
    texts = (pair.first, pair.second) if pair.truth == 1 else (pair.second, pair.first)
    assert texts[0].startswith("I ")
    return texts


def test_labels_by_chance_change_no_feature(
    model: HookedTransformer, dictionary: Dictionary
) -> None:
    """The same answers, the better one drawn: intervals hold for all features at once."""
    pairs = [
        dataclasses.replace(pair, truth=float(draw_seed("coin", pair.id) % 2)) for pair in _pairs()
    ]
    found = changed_features(model, dictionary, pairs)
    assert found.n_tested > 10
    assert found.n_changed == 0
    assert found.features == []


def test_a_few_prompts_show_nothing(model: HookedTransformer, dictionary: Dictionary) -> None:
    """Five equal differences have no spread; a sign test of as many features needs ten prompts."""
    found = changed_features(model, dictionary, _pairs(5))
    assert found.n_tested > 10
    assert found.n_changed == 0


def test_unknown_truths_are_refused(model: HookedTransformer, dictionary: Dictionary) -> None:
    pairs = [dataclasses.replace(pair, truth=None) for pair in _pairs(4)]
    with pytest.raises(ValueError, match="whose better answer is known"):
        changed_features(model, dictionary, pairs)
