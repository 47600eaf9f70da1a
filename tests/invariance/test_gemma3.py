"""The promises on Gemma 3 270m: sliding windows, sandwich norms, weights out of K-quants.

All logits, every residual stream, every hook of a layer of either kind. `bitlens verify` has the
whole table, in tests/audit/invariance/test_verify.py.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import bitlens
import pytest
import torch
from bitlens.audit.invariance.observation import Observation, cut, n_different
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from invariance.subjects import (
    REAL_MODEL_DTYPES,
    Views,
    assert_same,
    check_cut,
    draw_tokens,
    new_cache,
    padded,
)

LAYERS = (4, 5)  # the second of them sees everything
N_TOKENS = 12


@pytest.fixture(scope="module", params=REAL_MODEL_DTYPES)
def gemma3(request: pytest.FixtureRequest, gemma3_checkpoint: Checkpoint) -> HookedTransformer:
    return bitlens.load(gemma3_checkpoint, dtype=request.param)


def views_of(model: HookedTransformer) -> Views:
    prefixes = tuple(f"blocks.{i}." for i in LAYERS)
    names = [
        name
        for name in model.hook_names
        if name.startswith(prefixes) or name.endswith("hook_resid_post") or "blocks" not in name
    ]
    return Views(model, names)


@functools.lru_cache(maxsize=1)
def reference(model: HookedTransformer) -> tuple[torch.Tensor, Observation]:
    tokens_P = draw_tokens(model, N_TOKENS)
    return tokens_P, views_of(model).alone(tokens_P)


@pytest.mark.parametrize("side", ["left", "right"])
def test_mates_of_other_lengths(gemma3: HookedTransformer, side: str) -> None:
    tokens_P, expected = reference(gemma3)
    lengths = (5, N_TOKENS, 1)
    batch_BP, mask_BP = padded([tokens_P[:n] for n in lengths], side)
    for n, seen in zip(lengths, views_of(gemma3)(batch_BP, mask_BP), strict=True):
        assert_same(seen, cut(expected, 0, n))


@pytest.mark.parametrize("length", [1, 7])
def test_chunks(gemma3: HookedTransformer, length: int) -> None:
    tokens_P, expected = reference(gemma3)
    check_cut(views_of(gemma3), tokens_P, expected, range(length, N_TOKENS, length))


def test_threads_and_instruction_sets(gemma3: HookedTransformer) -> None:
    tokens_P, expected = reference(gemma3)
    for threads, isa in itertools.product((1, 3), bitlens._core.available_isas()):
        bitlens.set_num_threads(threads)
        bitlens._core.set_isa(isa)
        n = 1 if isa == "generic" else 4
        assert_same(views_of(gemma3)(tokens_P[None, :n])[0], cut(expected, 0, n))


def last_residual(
    model: HookedTransformer, tokens_P: torch.Tensor, cuts: Sequence[int]
) -> torch.Tensor:
    """The residual stream [p, d] after all blocks, the prompt cut into calls on one cache."""
    cache, pieces = new_cache(model), []

    def keep(x: torch.Tensor, hook: object) -> None:
        pieces.append(x[0].clone())

    with torch.no_grad(), model.hooks([("blocks.17.hook_resid_post", keep)]):
        for start, stop in itertools.pairwise([0, *cuts, len(tokens_P)]):
            model(tokens_P[None, start:stop], kv_cache=cache, return_type=None)
    return torch.cat(pieces)


def test_cuts_around_the_window(gemma3: HookedTransformer) -> None:
    tokens_P = draw_tokens(gemma3, 530)
    whole = last_residual(gemma3, tokens_P, [])
    assert whole.shape == (530, 640)
    for cuts in ([511], [100, 512, 513, 514]):
        assert n_different(last_residual(gemma3, tokens_P, cuts), whole) == 0
