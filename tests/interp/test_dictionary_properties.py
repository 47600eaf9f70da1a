"""Features of drawn dictionaries keep their bound, and the field's own bugs are caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitlens.interp.dictionaries import Dictionary, Features
from bitlens.interp.dictionaries.judge import judge_features
from bitlens.interp.dictionaries.strategies import (
    KINDS,
    DrawnDictionary,
    activations_for,
    dictionaries,
)
from bitlens.interp.stability import Movement, certify, limit_of
from bitlens.model.hooks.registry import same_bits
from bitlens.precision.inject import inject_fault
from bitlens.precision.oracle import check
from bitlens.precision.strategies import Constant, Integers, Random, Recipe
from hypothesis import find, given, settings
from hypothesis import strategies as st

REBUILDS = {
    "DrawnDictionary": DrawnDictionary,
    "Recipe": Recipe,
    "Integers": Integers,
    "Random": Random,
    "Constant": Constant,
}


@given(data=st.data(), drawn=dictionaries())
def test_features_are_within_their_bound_and_print_as_code(
    data: st.DataObject, drawn: DrawnDictionary
) -> None:
    dictionary, recipe = drawn.build(), data.draw(activations_for(drawn))
    x = recipe.build()
    features = dictionary.encode_sparse(x)
    verdict = judge_features(dictionary, x, features)
    assert verdict.ok, verdict.reason
    again = eval(repr(drawn), REBUILDS).build()
    assert same_bits(again.encode(eval(repr(recipe), REBUILDS).build()), features.dense())
    if drawn.kind == "dead":
        assert not features.values.numel() or drawn.architecture.startswith("topk")


@given(data=st.data(), drawn=dictionaries())
def test_bf16_and_fp32_features_differ_only_inside_the_bound(
    data: st.DataObject, drawn: DrawnDictionary
) -> None:
    dictionary, x = drawn.build(), data.draw(activations_for(drawn)).build()
    narrow = x.to(torch.bfloat16).float()
    scores = dictionary.encoder.scores(x)
    shape = tuple(scores.shape)
    active_a, active_b = (
        dictionary.encoder.select(dictionary.encoder.scores(rows), shape).dense() != 0
        for rows in (x, narrow)
    )
    bound = Movement(dictionary)(x, narrow)
    moved = (scores.double() - dictionary.encoder.scores(narrow).double()).abs()
    assert (moved <= bound).all()
    pairs = certify(scores, active_a, bound, limit_of(dictionary))
    flipped = (active_a ^ active_b).gather(1, pairs.features) & pairs.kept
    assert not (pairs.certified & flipped).any()


def test_every_kind_is_drawn_and_an_unknown_one_is_named() -> None:
    for kind in KINDS:
        found = find(dictionaries(kinds=[kind]), lambda d: True)
        assert found.kind == kind
    with pytest.raises(ValueError, match="no kind of dictionary"):
        find(dictionaries(kinds=["odd"]), lambda d: True)


# The field's own bugs

Fault = Callable[[Dictionary, torch.Tensor], torch.Tensor]
"""Returns dense activations of rows as an encoder with a fault gives them."""


def _scores(d: Dictionary, x: torch.Tensor) -> torch.Tensor:
    return d.encoder.scores(x)


def _above(scores: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    return scores.where(scores > threshold, 0.0)


def threshold_in_bf16(d: Dictionary, x: torch.Tensor) -> torch.Tensor:
    return _above(_scores(d, x), d.encoder.thresholds().to(torch.bfloat16).float())


def threshold_twice(d: Dictionary, x: torch.Tensor) -> torch.Tensor:
    """dictionary_learning#55."""
    scores, threshold = _scores(d, x), d.encoder.thresholds()
    return scores.where(scores - threshold > threshold, 0.0)


def at_least(d: Dictionary, x: torch.Tensor) -> torch.Tensor:
    scores = _scores(d, x)
    return scores.where((scores >= d.encoder.thresholds()) & (scores > 0), 0.0)


def last_of_ties(d: Dictionary, x: torch.Tensor) -> torch.Tensor:
    scores = _scores(d, x).flip(1)
    return d.encoder.select(scores, tuple(scores.shape)).dense().flip(1)


def sums_in_bf16(d: Dictionary, x: torch.Tensor) -> torch.Tensor:
    centred = d.encoder.centred(x).to(torch.bfloat16)
    scores = (centred @ d.W_enc.detach().to(torch.bfloat16)).float() + d.b_enc.detach()
    return d.encoder.select(scores, tuple(scores.shape)).dense()


def decoder_norm_twice(d: Dictionary, x: torch.Tensor) -> torch.Tensor:
    scores = _scores(d, x) * d.encoder.decoder_norms()
    return d.encoder.select(scores, tuple(scores.shape)).dense()


def b_dec_forgotten(d: Dictionary, x: torch.Tensor) -> torch.Tensor:
    """SAELens#354."""
    scores = d.encoder.scores(x + d.b_dec.detach()) if d.cfg.apply_b_dec_to_input else _scores(d, x)
    return d.encoder.select(scores, tuple(scores.shape)).dense()


FAULTS: dict[str, tuple[Fault, str]] = {
    "threshold_in_bf16": (threshold_in_bf16, "jumprelu"),
    "threshold_twice": (threshold_twice, "jumprelu"),
    "at_least": (at_least, "jumprelu"),
    "last_of_ties": (last_of_ties, "topk"),
    "sums_in_bf16": (sums_in_bf16, "topk"),
    "decoder_norm_twice": (decoder_norm_twice, "standard"),
    "b_dec_forgotten": (b_dec_forgotten, "topk"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str) -> None:
    fault, architecture = FAULTS[name]

    def is_caught(drawn: tuple[DrawnDictionary, Recipe]) -> bool:
        dictionary, x = drawn[0].build(), drawn[1].build()
        acts = fault(dictionary, x)
        return not judge_features(dictionary, x, Features.from_dense(acts)).ok

    pairs = dictionaries(architectures=[architecture]).flatmap(
        lambda d: st.tuples(st.just(d), activations_for(d))
    )
    found = find(pairs, is_caught, settings=settings(max_examples=400, derandomize=True))
    verdict = judge_features(
        found[0].build(), found[1].build(), found[0].build().encode_sparse(found[1].build())
    )
    assert verdict.ok  # the right encoder is not accused on the same rows


def test_what_is_not_judged_is_refused() -> None:
    from support.random_dictionaries import random_dictionary
    from support.random_models import random_model

    gated = random_dictionary(random_model("llama"), "blocks.0.hook_resid_post", None, "gated")
    x = torch.zeros(1, gated.cfg.d_in)
    with pytest.raises(ValueError, match="gated is not judged"):
        judge_features(gated, x, gated.encode_sparse(x))


# A feature is an operation with an address


@pytest.fixture
def dictionary() -> Dictionary:
    drawn = find(
        dictionaries(architectures=["topk"], kinds=["random"]),
        lambda d: d.d_in == 257 and d.d_sae >= 40 and (d.k or 0) >= 4,
        settings=settings(max_examples=2000, derandomize=True),
    )
    return drawn.build()


def rows(d: Dictionary) -> torch.Tensor:
    return torch.randn(9, d.cfg.d_in, generator=torch.Generator().manual_seed(0))


def test_each_operation_keeps_its_contract(dictionary: Dictionary) -> None:
    x, seen = rows(dictionary), []
    plain = dictionary(x)
    for address in dictionary.op_addresses:
        site = dictionary.site(address)

        def keep(original: Any, given: Any, site: Any = site) -> Any:
            result = original(given)
            verdict = check(site.view(result), site.bind(given), site.contract)
            assert verdict.ok, verdict
            seen.append(site.address)
            return result

        with dictionary.override(address, keep):
            assert same_bits(dictionary(x), plain)
    assert seen == ["encode", "decode"]
    with pytest.raises(KeyError, match="decode"):
        dictionary.site("decoed")


@pytest.mark.parametrize("address", ["encode", "decode"])
def test_a_fault_is_injected_and_found(dictionary: Dictionary, address: str) -> None:
    x, found = rows(dictionary), []
    plain = dictionary(x)
    site = dictionary.site(address)

    def judge(original: Any, given: Any) -> Any:
        result = original(given)
        found.append(check(site.view(result), site.bind(given), site.contract).ok)
        return result

    with inject_fault(dictionary, "tf32_inputs", at=address), dictionary.override(address, judge):
        faulty = dictionary(x)
    assert found == [False]
    assert not same_bits(faulty, plain)
    assert same_bits(dictionary(x), plain)
