"""A monitor's score of a token has the bits of one pass over the whole text, on every architecture.

Chunks and cached prefixes are in tests/interp/monitors/test_watched_requests.py, shards in
tests/parallel/test_monitors.py.
"""

from __future__ import annotations

import bitlens
import pytest
import torch
from bitlens import _core
from bitlens.interp.monitors import Monitor
from bitlens.interp.probes import Probe
from bitlens.model.generation import GenerateOutput
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import assert_same, count_different, draw_tokens, padded
from support.random_probes import random_probe, whole_scores

HOOKS = ("blocks.0.attn.hook_z", "blocks.0.mlp.hook_post", "blocks.1.hook_resid_post")
AGGREGATES = ("mean", "last", "max", "rolling:3", "ema:0.25")
LENGTHS = (9, 2, 70)
NEW = 3


def probes_of(model: HookedTransformer) -> dict[str, Probe]:
    """A probe of each aggregate, over the hooks in turn."""
    named = [f"{HOOKS[i % len(HOOKS)]}/{a}" for i, a in enumerate(AGGREGATES)]
    return {name: random_probe(model, *name.split("/"), seed=i) for i, name in enumerate(named)}


def watched(
    model: HookedTransformer, tokens: torch.Tensor, mask: torch.Tensor | None = None
) -> GenerateOutput:
    monitors = [Monitor(probe, name=name) for name, probe in probes_of(model).items()]
    return model.generate(
        tokens, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, temperature=1.0,
        seed=4, monitors=monitors,
    )  # fmt: skip


def scores_of(out: GenerateOutput, row: int) -> dict[str, torch.Tensor]:
    real = out.attention_mask[row] == 1
    return {name: scores[row][real] for name, scores in out.scores.items()}


def whole(model: HookedTransformer, tokens: list[int]) -> dict[str, torch.Tensor]:
    return {name: whole_scores(model, p, tokens) for name, p in probes_of(model).items()}


def check(model: HookedTransformer, out: GenerateOutput) -> None:
    """Every row's scores are those of one pass, and those of its text reversed are others."""
    for row in range(len(out.tokens)):
        text = out.tokens[row][out.attention_mask[row] == 1].tolist()
        found = scores_of(out, row)
        assert_same(found, whole(model, text))
        assert count_different(found, whole(model, text[::-1]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_and_padding(model_in_turn: HookedTransformer, side: str) -> None:
    model = model_in_turn
    rows = [draw_tokens(model, n, seed=n) for n in LENGTHS]
    out = watched(model, *padded(rows, side))
    check(model, out)
    for i, row in enumerate(rows):
        alone = watched(model, row[None])
        assert alone.tokens[0].tolist() == out.tokens[i][out.attention_mask[i] == 1].tolist()
        assert_same(scores_of(alone, 0), scores_of(out, i))


def test_threads_and_instruction_sets(model_in_turn: HookedTransformer) -> None:
    model = model_in_turn
    tokens, mask = padded([draw_tokens(model, n, seed=n) for n in LENGTHS[:2]], "left")
    bitlens.set_num_threads(1)
    expected = watched(model, tokens, mask)
    check(model, expected)
    for isa in _core.available_isas():
        for n_threads in (1, 2, 3):
            _core.set_isa(isa)
            bitlens.set_num_threads(n_threads)
            found = watched(model, tokens, mask)
            assert torch.equal(found.tokens, expected.tokens)
            assert_same(found.scores, expected.scores)
