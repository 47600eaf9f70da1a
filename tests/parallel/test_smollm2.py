"""The real model over 2, 3 and 5 ranks: neither its 9 heads nor its 3 key/value heads divide so."""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.audit.invariance.observation import observe
from bitlens.model.parallel import Group, run_in_threads
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import assert_same
from parallel.sharded import TIMEOUT

PROMPT = "Paris is the capital of France, and"


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> HookedTransformer:
    return bitlens.load(smollm2_path)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_logits_hooks_and_tokens(smollm2: HookedTransformer, smollm2_path: Path, size: int) -> None:
    def run(model: HookedTransformer) -> dict[str, torch.Tensor]:
        (seen,) = observe(model, model.to_tokens(PROMPT), model.hook_names)
        out = model.generate(PROMPT, max_new_tokens=10, temperature=1.0, top_k=50, seed=9)
        return seen | {"bare": model(PROMPT), "generated": out.tokens}

    def on_rank(group: Group) -> tuple[dict[str, torch.Tensor], int]:
        model = bitlens.load(smollm2_path, group=group)
        return run(model), model.weight_bytes()

    expected = run(smollm2)
    parts = run_in_threads(size, on_rank, timeout=TIMEOUT)
    for found, _ in parts:
        assert_same(found, expected)
    shares = [n_bytes / smollm2.weight_bytes() for _, n_bytes in parts]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 1.1 / size
