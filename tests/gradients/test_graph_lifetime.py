"""A loss that is kept keeps no activations, and a graph that is dropped goes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitlens.model import HookedTransformer
from support.random_models import random_model

TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]])
INSIDE = [f"blocks.1.{name}" for name in ("attn.hook_k", "attn.hook_pattern", "mlp.hook_post")]


@pytest.fixture(scope="module", params=["native", "torch"])
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    return random_model("llama", backend=request.param)


def dropped(run: Callable[[Any], object]) -> bool:
    """Whether a backward hook that `run` installs is gone once its result is."""

    def fn(grad: torch.Tensor, hook: Any) -> None:
        return None

    alive = weakref.ref(fn)
    run(fn)
    del fn
    gc.collect()
    return alive() is None


def test_a_kept_loss_keeps_no_activations_and_gradients(model: HookedTransformer) -> None:
    loss, cache = model.run_with_cache(TOKENS, return_type="loss", incl_bwd=True)
    kept = [weakref.ref(x) for x in cache.values()]
    assert kept
    del cache
    gc.collect()
    assert not [ref for ref in kept if ref() is not None]
    assert loss.requires_grad


@pytest.mark.parametrize("recompute", [False, True])
def test_a_dropped_graph_goes(model: HookedTransformer, recompute: bool) -> None:
    def whole(fn: Any) -> None:
        model.run_with_hooks(TOKENS, bwd_hooks=[(name, fn) for name in INSIDE]).sum().backward()

    def never_backward(fn: Any) -> None:
        model.run_with_hooks(TOKENS, bwd_hooks=[(name, fn) for name in INSIDE])

    def stopped(fn: Any) -> None:
        hooks = [("hook_embed", fn), *((name, fn) for name in INSIDE)]
        model.run_with_hooks(TOKENS, bwd_hooks=hooks, stop_at_layer=2)

    def interrupted(fn: Any) -> None:
        def fail(x: torch.Tensor, hook: Any) -> None:
            raise ArithmeticError

        hooks = [("hook_embed", fn), *((name, fn) for name in INSIDE)]
        with pytest.raises(ArithmeticError):
            model.run_with_hooks(TOKENS, [("blocks.2.hook_resid_pre", fail)], hooks)

    if recompute:
        model.gradient_checkpointing_enable()
    try:
        for run in (whole, never_backward, stopped, interrupted):
            assert dropped(run), run.__name__
    finally:
        model.gradient_checkpointing_disable()
