"""A prompt's bits do not depend on the calls it is fed in, nor do windows see the cuts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import (
    WIDE,
    Views,
    assert_same,
    check_cut,
    draw_tokens,
    random_cuts,
    with_dtypes,
)
from support.random_models import CONFIGS, random_model


def every_length(views: Views, n_tokens: int, lengths: range | tuple[int, ...]) -> None:
    tokens_P = draw_tokens(views.model, n_tokens)
    expected = views.alone(tokens_P)
    for length in lengths:
        calls = check_cut(views, tokens_P, expected, range(length, n_tokens, length))
        assert calls == -(-n_tokens // length)


def test_chunks_of_every_length_fused(model_in_turn: HookedTransformer) -> None:
    every_length(Views(model_in_turn, names=[]), 130, range(1, 65))


def test_chunks_with_every_hook(model_in_turn: HookedTransformer) -> None:
    every_length(Views(model_in_turn), 66, (1, 2, 3, 7, 16, 31, 32, 33, 63, 64))


@pytest.mark.nightly
def test_chunks_of_every_length_with_every_hook(model: HookedTransformer) -> None:
    every_length(Views(model), 130, range(1, 65))


def test_random_cuts_fused(model_in_turn: HookedTransformer) -> None:
    views = Views(model_in_turn, names=[])
    tokens_P = draw_tokens(model_in_turn, 1024)
    expected = views.alone(tokens_P)
    for seed, n_cuts in enumerate((1, 5, 30)):
        check_cut(views, tokens_P, expected, random_cuts(1024, n_cuts, seed))


def test_random_cuts_with_every_hook(model: HookedTransformer) -> None:
    views = Views(model)
    tokens_P = draw_tokens(model, 300)
    check_cut(views, tokens_P, views.alone(tokens_P), [1, 64, 255, 257, 290])


def test_decode_one_by_one(model_in_turn: HookedTransformer) -> None:
    views = Views(model_in_turn, names=[])
    tokens_P = draw_tokens(model_in_turn, 530)  # past two leaves of 256 keys
    calls = check_cut(views, tokens_P, views.alone(tokens_P), range(1, 530))
    assert calls == 530


@pytest.mark.parametrize(("architecture", "dtype"), with_dtypes(["mistral"]))
@pytest.mark.parametrize("window", [1, 2, 63, 64, 65, 255, 256, 257])
def test_windows(window: int, architecture: str, dtype: str) -> None:
    layers = tuple(
        dataclasses.replace(layer, window=window if i != 1 else None)
        for i, layer in enumerate(CONFIGS[architecture].layers)
    )
    model = random_model(architecture, changes=WIDE | {"layers": layers}, dtype=dtype)
    views = Views(model)
    tokens_P = draw_tokens(model, 330)
    expected = views.alone(tokens_P)
    for cuts in ([window], [320, 321, 322], [64, 256, 300]):
        check_cut(views, tokens_P, expected, [c for c in cuts if c < 330])
    visible = (expected["blocks.0.attn.hook_pattern"] != 0).sum(-1)  # [H, P]
    assert int(visible.max()) <= window
    assert_same(
        {"scores": (expected["blocks.0.attn.hook_attn_scores"][0] > -torch.inf).sum(-1)},
        {"scores": torch.arange(1, 331).clamp(max=window)},
    )
