"""Passes that begin at a block, with the residual stream in place of tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.model.hooks.registry import HookPoint, same_bits
from bitlens.model.parallel import Group, run_in_threads
from support.random_models import random_checkpoint, random_model

TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
OPTIONS: list[dict[str, Any]] = [
    {},
    {"dtype": "bf16"},
    {"dtype": "hf_bf16"},
    {"backend": "torch"},
    {"backend": "torch", "dtype": "fp64"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_pass_in_two_parts_has_the_bits_of_the_whole(
    architecture: str, options: dict[str, Any]
) -> None:
    model = random_model(architecture, **options)
    expected = model(TOKENS, MASK)
    for layer in (0, 1, 3, -1):
        resid = model(TOKENS, MASK, stop_at_layer=layer)
        assert same_bits(model(resid, MASK, start_at_layer=layer), expected)
        assert not same_bits(model(resid + 1, MASK, start_at_layer=layer), expected)
    middle = model(model(TOKENS, MASK, stop_at_layer=1), MASK, start_at_layer=1, stop_at_layer=2)
    assert same_bits(middle, model(TOKENS, MASK, stop_at_layer=2))


def test_the_cache_holds_what_lies_between() -> None:
    model = random_model("llama")
    _, whole = model.run_with_cache(TOKENS)
    _, cache = model.run_with_cache(
        whole["resid_pre", 1], start_at_layer=1, stop_at_layer=2, return_type=None
    )
    assert set(cache) == {name for name in whole if name.startswith("blocks.1.")}
    assert all(same_bits(cache[name], whole[name]) for name in cache)
    _, cache = model.run_with_cache(whole["resid_pre", 2], start_at_layer=2)
    assert "hook_embed" not in cache
    assert same_bits(cache["ln_final.hook_normalized"], whole["ln_final.hook_normalized"])


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_gradients_reach_the_residual_stream_that_was_given(backend: str) -> None:
    model = random_model("llama", backend=backend)
    found: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, *, hook: HookPoint) -> None:
        found[hook.name] = tensor.clone()

    name = "blocks.1.hook_resid_pre"
    model.run_with_hooks(TOKENS, bwd_hooks=[(name, keep)])[0, -1, 5].backward()
    resid = model(TOKENS, stop_at_layer=1).detach().requires_grad_()
    model(resid, start_at_layer=1)[0, -1, 5].backward()
    assert resid.grad is not None
    assert same_bits(resid.grad, found[name])


def test_hooks_edit_and_those_before_raise() -> None:
    model = random_model("llama")
    resid = model(TOKENS, stop_at_layer=1)
    double: Any = lambda tensor, hook: tensor * 2  # noqa: E731
    edited = model.run_with_hooks(resid, [("blocks.1.hook_resid_pre", double)], start_at_layer=1)
    assert same_bits(edited, model(2 * resid, start_at_layer=1))
    for name in ("hook_embed", "hook_tokens", "blocks.0.hook_resid_post"):
        with pytest.raises(ValueError, match=f"start_at_layer = 1.*{name} would never fire"):
            model.run_with_hooks(resid, [(name, double)], start_at_layer=1)


def test_ranks_give_the_same_bits() -> None:
    checkpoint = random_checkpoint("llama")
    whole = random_model("llama")
    resid = whole(TOKENS, stop_at_layer=1)
    expected = whole(TOKENS)

    def rank(group: Group) -> torch.Tensor:
        import bitlens

        return bitlens.load(checkpoint, group=group)(resid, start_at_layer=1)  # type: ignore[no-any-return]

    assert all(same_bits(found, expected) for found in run_in_threads(2, rank))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": TOKENS}, "begins with the residual stream"),
        ({"tokens": "a text"}, "begins with the residual stream, .* got str"),
        ({"tokens": torch.zeros(2, 7, 41)}, r"got \(torch.float32, \[2, 7, 41\]\)"),
        ({"tokens": torch.zeros(2, 7, 42, dtype=torch.bfloat16)}, "torch.bfloat16"),
        ({"start_at_layer": 4}, "start_at_layer = 4: the model has 3 layers"),
        ({"return_type": "loss"}, "has no loss"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_cannot_be_raises(change: dict[str, Any], message: str) -> None:
    model = random_model("llama")
    arguments = {"tokens": torch.zeros(2, 7, 42), "start_at_layer": 1} | change
    with pytest.raises(ValueError, match=message):
        model(**arguments)
    with pytest.raises(ValueError, match="lower layers of kv_cache"):
        model(torch.zeros(2, 7, 42), kv_cache=model.new_cache(2), start_at_layer=1)
