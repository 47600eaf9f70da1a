"""Cuts of a real model's prompts, and what a neighbour can tell by the clock."""

from __future__ import annotations

import random
import time
from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.model.cache import KVCache, PrefixCache
from invariance.subjects import REAL_MODEL_DTYPES, assert_same
from scipy import stats
from support.random_models import random_model

TEXT = "You are a careful assistant who answers in one sentence. " * 30


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", REAL_MODEL_DTYPES)
def test_200_random_cuts_of_smollm2(smollm2_path: Path, dtype: str) -> None:
    model = bitlens.load(smollm2_path, dtype=dtype)
    assert model.tokenizer is not None
    ids = model.tokenizer.encode(TEXT)[:300]
    cache = PrefixCache(model, 1 << 30)
    with cache.prompt(ids) as prompt:
        model(torch.tensor(ids), kv_cache=prompt.kv_cache)
    draw, found = random.Random(0), 0
    for _ in range(200):
        cut, n_new = draw.randrange(300), draw.randrange(1, 100)
        other = [*ids[:cut], *(draw.randrange(model.config.d_vocab) for _ in range(n_new))]
        held = cache.hold(other)  # and not kept, so that nothing is given up for it
        kv_cache = KVCache.over(model.config, cache.pool, [held.sequence])
        rest_PV = model(torch.tensor(other[held.n_cached :]), kv_cache=kv_cache)[0]
        cache.release(held)
        assert held.n_cached >= cut
        found += held.n_cached
        whole_PV = model(torch.tensor(other))[0]
        assert_same({"logits": rest_PV}, {"logits": whole_PV[held.n_cached :]})
    assert cache.stats().hit_tokens == found > 200 * 100


def _auc(salted: bool, trials: int) -> tuple[float, float]:
    """How well times tell prompts that a neighbour asked from others; and the p-value."""
    model = random_model("llama", changes={"n_ctx": 1100})
    cache = PrefixCache(model, 64 << 20)
    generator = torch.Generator().manual_seed(0)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for trial in range(trials):
        known = trial % 2 == 0
        ids = torch.randint(250, (1000,), generator=generator).tolist()
        for salt, measured in (("neighbour", False), ("me" if salted else "neighbour", True)):
            if not measured and not known:
                continue
            started = time.perf_counter()
            with cache.prompt(ids, salt=salt) as prompt:
                model(torch.tensor(ids[prompt.n_cached :]), kv_cache=prompt.kv_cache)
            if measured:
                seconds[known].append(time.perf_counter() - started)
    test = stats.mannwhitneyu(seconds[False], seconds[True], alternative="greater")
    return test.statistic / len(seconds[True]) / len(seconds[False]), test.pvalue


@pytest.mark.nightly
def test_a_salt_hides_what_a_neighbour_asked() -> None:
    _auc(True, 20)
    auc, p = _auc(True, 400)
    assert p > 1e-4, f"AUC {auc:.3f}"
    assert _auc(False, 400)[0] > 0.9, "the control must tell"
