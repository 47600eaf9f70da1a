"""Gradient checkpointing: the same bits from less memory, and no hook runs twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from bitlens.model import HookedTransformer
from invariance.subjects import assert_same, draw_tokens, small
from support.gradient_cases import gradient_names, gradients, metric
from support.random_models import CONFIGS, random_model
from torch.autograd.graph import saved_tensors_hooks

TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
RESID = "blocks.1.hook_resid_pre"


@contextmanager
def recomputing(model: HookedTransformer) -> Iterator[None]:
    model.gradient_checkpointing_enable()
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


def saved_bytes(model: HookedTransformer, tokens: torch.Tensor) -> int:
    """What a forward pass keeps for backward, each tensor's memory counted once."""
    held: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        model.run_with_hooks(tokens, bwd_hooks=[("hook_embed", lambda grad, hook: None)])
    return sum(held.values())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_gradients_keep_their_bits(architecture: str, dtype: str) -> None:
    model = random_model(architecture, dtype=dtype)
    names = gradient_names(model)
    expected = gradients(model, TOKENS, names, MASK)
    with recomputing(model):
        assert_same(gradients(model, TOKENS, names, MASK), expected)
        assert_same(gradients(model, TOKENS, [RESID], MASK), {RESID: expected[RESID]})


def test_weight_gradients_keep_their_bits() -> None:
    torch.set_num_threads(1)
    model = random_model("gemma3", backend="torch")
    found = []
    for switch in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        switch()
        model.zero_grad()
        model(TOKENS, MASK, return_type="loss").backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert_same(found[1], found[0])


def test_a_block_keeps_its_input_alone() -> None:
    model = small("llama", "fp32")
    tokens = draw_tokens(model, 1, 200)
    whole = saved_bytes(model, tokens)
    with recomputing(model):
        kept = saved_bytes(model, tokens)
    inputs = model.config.n_layers * tokens.numel() * model.config.d_model * 4
    final_norm = tokens.numel() * model.config.d_model * 4
    assert kept <= inputs + final_norm + 2**14
    assert whole > 4 * kept


def test_forward_hooks_run_once_and_backward_hooks_too() -> None:
    model = random_model("llama")
    calls: list[str] = []
    vector = torch.ones(42, requires_grad=True)

    def add(x: torch.Tensor, hook: Any) -> torch.Tensor:
        calls.append(hook.name)
        return x + vector

    def note(grad: torch.Tensor, hook: Any) -> None:
        calls.append(f"{hook.name}_grad")

    names = ["blocks.0.hook_mlp_out", "blocks.1.hook_attn_out"]
    results = []
    for switch in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        switch()
        calls.clear()
        vector.grad = None
        hooks = [(name, note) for name in names]
        metric(model.run_with_hooks(TOKENS, [(names[0], add)], hooks)).backward()
        assert calls == [names[0], f"{names[1]}_grad", f"{names[0]}_grad"]
        assert vector.grad is not None
        results.append(vector.grad)
    assert torch.equal(*results)


def test_captures_and_a_cache_are_those_of_the_pass() -> None:
    model = random_model("gemma3")
    plain = model.new_cache(2)
    _, expected = model.run_with_cache(
        TOKENS, return_type="loss", attention_mask=MASK, incl_bwd=True, kv_cache=plain
    )
    with recomputing(model):
        cache = model.new_cache(2)
        _, found = model.run_with_cache(
            TOKENS, return_type="loss", attention_mask=MASK, incl_bwd=True, kv_cache=cache
        )
    assert_same(found, expected)
    assert cache.lengths == plain.lengths
    with torch.no_grad():
        after = (model(TOKENS[:, :1], kv_cache=each) for each in (cache, plain))
        assert torch.equal(*after)
