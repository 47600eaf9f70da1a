"""A row's bits do not depend on its batch: size, place, company, padding, cache."""

from __future__ import annotations

import pytest
import torch
from bitlens.audit.invariance.observation import cut
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import Views, assert_same, draw_tokens, padded

BATCH_SIZES = (1, 2, 3, 8, 17)


def test_batch_size_and_position(model: HookedTransformer) -> None:
    views = Views(model)
    tokens_BP = draw_tokens(model, max(BATCH_SIZES), 7)
    alone = [views.alone(row) for row in tokens_BP]
    for n in BATCH_SIZES:
        for shift in {0, 1, n // 2}:
            order = [(i + shift) % n for i in range(n)]
            for row, seen in zip(order, views(tokens_BP[order]), strict=True):
                assert_same(seen, alone[row])


@pytest.mark.parametrize("side", ["left", "right"])
def test_mates_of_other_lengths(model: HookedTransformer, side: str) -> None:
    views = Views(model)
    rows = [draw_tokens(model, n, seed=n) for n in (9, 1, 66, 2, 270, 33)]
    tokens_BP, mask_BP = padded(rows, side)
    assert int((mask_BP == 0).sum()) == 6 * 270 - sum(map(len, rows))
    for row, seen in zip(rows, views(tokens_BP, mask_BP), strict=True):
        assert_same(seen, views.alone(row))


def test_padding_tokens_are_not_looked_at(model: HookedTransformer) -> None:
    rows = [draw_tokens(model, 5), draw_tokens(model, 2)]
    tokens_BP, mask_BP = padded(rows, "left")
    other_BP = tokens_BP.masked_fill(mask_BP == 0, model.config.d_vocab - 1)
    assert not torch.equal(tokens_BP, other_BP)
    first, second = Views(model)(tokens_BP, mask_BP), Views(model)(other_BP, mask_BP)
    for one, other in zip(first, second, strict=True):
        same = {name: x for name, x in one.items() if name != "hook_tokens"}
        assert_same(other, same)


@pytest.mark.parametrize("side", ["left", "right"])
def test_ragged_cache_goes_on_as_each_row_alone(model: HookedTransformer, side: str) -> None:
    """Prompts of 61, 3 and 70; then 3 tokens each; then 1, 6 and 2, padded; then one each."""
    rounds = [(61, 3, 70), (3, 3, 3), (1, 6, 2), (1, 1, 1)]
    totals = [sum(row) for row in zip(*rounds, strict=True)]
    rows = [draw_tokens(model, n, seed=n) for n in totals]
    alone = [Views(model).alone(row) for row in rows]
    views = Views(model)
    views.keep_cache(len(rows))
    past = [0] * len(rows)
    for lengths in rounds:
        ends = [start + n for start, n in zip(past, lengths, strict=True)]
        pieces = [row[a:b] for row, a, b in zip(rows, past, ends, strict=True)]
        tokens_BP, mask_BP = padded(pieces, side)
        seen = views(tokens_BP, None if mask_BP.all() else mask_BP)
        for b, found in enumerate(seen):
            assert_same(found, cut(alone[b], past[b], ends[b]))
        past = ends
    assert past == totals
