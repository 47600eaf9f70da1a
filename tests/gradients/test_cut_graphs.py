"""Where a graph ends: a detached result ends it; nothing else does without an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.model import HookedTransformer
from support.gradient_cases import gradient_names, gradients, metric
from support.random_models import random_model

BACKENDS = ("native", "torch")
TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
RESID = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module", params=BACKENDS)
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    torch.set_num_threads(1)
    return random_model("qwen3", backend=request.param)


def detached(x: torch.Tensor, hook: Any) -> torch.Tensor:
    return x.detach()


def nothing(x: torch.Tensor, hook: Any) -> None:
    return None


def test_a_detached_result_stops_gradients_at_every_hook(model: HookedTransformer) -> None:
    """The embedding's gradient loses what passes there: all of it, where nothing leads round."""
    plain = gradients(model, TOKENS, ["hook_embed"])["hook_embed"]
    with torch.no_grad():
        expected = model(TOKENS)
    all_passes = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "ln_final.hook_normalized")
    for name in gradient_names(model)[1:]:
        seen: list[torch.Tensor] = []
        backward = [("hook_embed", lambda grad, hook, seen=seen: seen.append(grad.clone()))]
        logits = model.run_with_hooks(TOKENS, [(name, detached)], backward)
        assert torch.equal(logits, expected)
        if logits.requires_grad:
            metric(logits).backward()
        if name.endswith(all_passes) or name.startswith("unembed."):
            assert not seen, name
        else:
            assert not torch.equal(*seen, plain), name


def test_a_frozen_pattern_leaves_the_gradient_of_values(model: HookedTransformer) -> None:
    attn = "blocks.1.attn"
    names = [f"{attn}.hook_q", f"{attn}.hook_k", f"{attn}.hook_v"]
    plain = gradients(model, TOKENS, names)
    seen: dict[str, torch.Tensor] = {}

    def keep(grad: torch.Tensor, hook: Any) -> None:
        seen[hook.name] = grad.clone()

    freeze = [(f"{attn}.hook_pattern", detached)]
    metric(model.run_with_hooks(TOKENS, freeze, [(name, keep) for name in names])).backward()
    assert seen.keys() == {f"{attn}.hook_v"}
    assert torch.equal(seen[f"{attn}.hook_v"], plain[f"{attn}.hook_v"])


def test_a_frozen_norm_and_per_head_inputs_raise(model: HookedTransformer) -> None:
    """Per-head inputs go through a norm of their own, which is not frozen."""
    backward = [("blocks.1.hook_q_input", nothing)]
    reads = [("blocks.1.ln1.hook_scale", nothing)]
    model.run_with_hooks(TOKENS, reads, backward)
    for edit in (detached, lambda x, hook: x * 2, lambda x, hook: x.mul_(2)):
        with pytest.raises(
            ValueError, match=r"each head then has a norm of its own.* hook one of them"
        ):
            model.run_with_hooks(TOKENS, [("blocks.1.ln1.hook_scale", edit)], backward)


def test_layers_alone_are_part_of_their_inputs_graph(model: HookedTransformer) -> None:
    block, config = model.blocks[1], model.config
    cases = [
        (model.ln_final, (2, 3, config.d_model)),
        (model.unembed, (2, 3, config.d_model)),
        (block.attn.q, (4, config.d_model)),
        (block.attn.q_norm, (4, config.n_heads, config.d_head)),
        (block.attn.head_results, (4, config.n_heads, config.d_head)),
    ]
    for layer, shape in cases:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        alone = layer(x.clone()).detach()
        result = layer(x.requires_grad_())
        assert torch.equal(result, alone)
        result.square().sum().backward()
        assert x.grad is not None
        assert x.grad.any()
        with torch.no_grad():
            assert not layer(x).requires_grad


def test_a_final_soft_cap_alone_is_part_of_its_inputs_graph() -> None:
    cap = random_model("gemma2").soft_cap
    assert cap is not None
    x = torch.ones(3, 5, requires_grad=True)
    cap(x).sum().backward()
    assert x.grad is not None
    assert x.grad.all()


def test_operations_without_gradients_raise() -> None:
    model = random_model("llama", dtype="hf_bf16")
    vector = torch.zeros(42, dtype=torch.bfloat16, requires_grad=True)

    def add(original: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return original(*args, **kwargs) + vector

    with model.override("blocks.1.mlp.down", add):
        with pytest.raises(ValueError, match=r"override of blocks.1.mlp.down.*hf_bf16"):
            model(TOKENS)
        with torch.no_grad():
            model(TOKENS)
    with pytest.raises(ValueError, match=r"input requires grad.*hf_bf16"):
        model.ln_final(vector[None])


@pytest.mark.parametrize("name", ["attn.hook_attn_scores", "attn.hook_pattern"])
def test_a_gradient_written_at_masked_keys_is_ignored(model: HookedTransformer, name: str) -> None:
    plain = gradients(model, TOKENS, [RESID])
    later = torch.ones(TOKENS.shape[1], TOKENS.shape[1]).triu(1).bool()

    def write(grad: torch.Tensor, hook: Any) -> torch.Tensor:
        return grad.masked_fill(later, torch.inf)

    with model.hooks(bwd_hooks=[(f"blocks.1.{name}", write)]):
        found = gradients(model, TOKENS, [RESID])
    assert torch.equal(found[RESID], plain[RESID])


@pytest.mark.parametrize(
    ("hook", "address"),
    [
        ("hook_q_input", "attn.q"),
        ("hook_attn_in", "attn.v"),
        ("hook_k_input", "ln1"),
        ("attn.hook_result", "attn.o"),
    ],
)
def test_an_override_that_a_path_passes_by_raises(
    model: HookedTransformer, hook: str, address: str
) -> None:
    def zeros(original: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return original(*args, **kwargs) * 0

    hook, address = f"blocks.1.{hook}", f"blocks.1.{address}"
    with model.override(address, zeros):
        model.run_with_cache(TOKENS, hook)
        edits: list[Any] = [([(hook, lambda x, hook: x * 2)], []), ([], [(hook, nothing)])]
        for forward, backward in edits:
            with pytest.raises(ValueError, match=f"the override of {address} does not reach"):
                model.run_with_hooks(TOKENS, forward, backward)
