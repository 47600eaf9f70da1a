"""Monitors of a model over several ranks give the scores, alarms and tokens of the whole one."""

from __future__ import annotations

import math

import pytest
import torch
from bitlens.interp.monitors import Alarm, Monitor
from bitlens.model.transformer import HookedTransformer
from parallel.sharded import draw_batch, on_ranks, whole
from support.random_probes import random_probe

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.mlp.hook_post", "blocks.1.attn.hook_z")

Seen = tuple[torch.Tensor, dict[str, torch.Tensor], list[Alarm], list[str]]


def watched(model: HookedTransformer, threshold: float = math.inf, seed: int = 0) -> Seen:
    """One row is stopped, which every rank must do at once."""
    tokens, mask = draw_batch(model.config.d_vocab)
    probes = [random_probe(model, hook, "ema:0.25", seed + i) for i, hook in enumerate(HOOKS)]
    monitors = [Monitor(probe) for probe in probes]
    monitors += [Monitor(probes[0], name="stops", rows=[1], threshold=threshold, window=2)]
    out = model.generate(
        tokens, attention_mask=mask, max_new_tokens=6, min_new_tokens=6, temperature=1.2, seed=3,
        monitors=monitors,
    )  # fmt: skip
    return out.tokens, out.scores, out.alarms, list(out.finish_reason)


@pytest.mark.parametrize(("size", "dtype"), [(2, "fp32"), (3, "bf16")])
def test_every_rank_sees_what_one_sees(size: int, dtype: str) -> None:
    free = watched(whole("llama", dtype))[1]["stops"][1, -6:-1]
    threshold = float(free.max()) - 1e-6
    tokens, scores, alarms, reasons = watched(whole("llama", dtype), threshold)
    assert reasons == ["length", "alarm", "length"]
    for found in on_ranks(size, lambda model: watched(model, threshold), "llama", dtype):
        assert torch.equal(found[0], tokens)
        for name, expected in scores.items():
            assert torch.equal(found[1][name].view(torch.int32), expected.view(torch.int32)), name
        assert found[2:] == (alarms, reasons)
    other = watched(whole("llama", dtype), threshold, seed=1)[1]  # the control
    assert not torch.equal(other[HOOKS[0]], scores[HOOKS[0]])
