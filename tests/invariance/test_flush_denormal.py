"""torch.set_flush_denormal reaches no kernel, on any thread."""

from __future__ import annotations

import threading

import bitlens
import pytest
import torch
from bitlens.model.load import load
from invariance.subjects import (
    ARCHITECTURES,
    Seen,
    Views,
    assert_same,
    count_different,
    draw_tokens,
    with_dtypes,
)
from invariance.subnormal import (
    count_subnormal,
    subnormal_checkpoint,
    subnormal_model,
    switch_flush_on,
)

pytestmark = pytest.mark.parametrize(("architecture", "dtype"), with_dtypes(ARCHITECTURES))


def reference(architecture: str, dtype: str) -> tuple[Views, torch.Tensor, Seen]:
    model = subnormal_model(architecture, dtype)
    views, tokens_P = Views(model), draw_tokens(model, 40)
    expected = views.alone(tokens_P)
    names = ["0.attn.hook_v", "0.attn.hook_z", "0.mlp.hook_post"]
    if model.config.attn_logit_softcap is None:  # capped scores are too near each other
        names.append("2.attn.hook_pattern")
    names += [] if model.config.norm_offset else ["1.mlp.hook_in"]
    for name in (f"blocks.{name}" for name in names):
        assert count_subnormal(expected[name]), f"no subnormal in {name}: the test shows nothing"
    return views, tokens_P, expected


def test_prefill_and_decode(architecture: str, dtype: str) -> None:
    views, tokens_P, expected = reference(architecture, dtype)
    switch_flush_on()
    assert_same(views(tokens_P[None])[0], expected)
    views.keep_cache(1)
    for at in range(12):
        (seen,) = views(tokens_P[None, at : at + 1])
        assert_same({"logits": seen["logits"]}, {"logits": expected["logits"][at : at + 1]})
    for isa in bitlens._core.available_isas():
        bitlens._core.set_isa(isa)
        seen = Views(views.model)(tokens_P[None, :12])[0]
        assert_same({"logits": seen["logits"]}, {"logits": expected["logits"][:12]})


def test_loading(architecture: str, dtype: str) -> None:
    _, tokens_P, expected = reference(architecture, dtype)
    checkpoint = subnormal_checkpoint(architecture)
    switch_flush_on()
    model = load(checkpoint, dtype=dtype)
    assert_same(Views(model)(tokens_P[None])[0], expected)
    torch.set_flush_denormal(False)
    assert_same(Views(model)(tokens_P[None])[0], expected)


def test_foreign_thread_and_its_pool(architecture: str, dtype: str) -> None:
    """The thread flushes, and so would a pool that inherited its settings."""
    views, tokens_P, expected = reference(architecture, dtype)
    seen: list[Seen] = []

    def run() -> None:
        switch_flush_on()
        bitlens.set_num_threads(1)
        bitlens.set_num_threads(3)  # a new pool, started by this thread
        seen.extend(views(tokens_P[None]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert_same(seen[0], expected)
    assert_same(views(tokens_P[None])[0], expected)


def test_control_torch_feels_it(architecture: str, dtype: str) -> None:
    model = subnormal_model(architecture, dtype, "torch")
    views, tokens_P = Views(model), draw_tokens(model, 40)
    (expected,) = views(tokens_P[None])
    switch_flush_on()
    assert count_different(views(tokens_P[None])[0], expected) > 0
