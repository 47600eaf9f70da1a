"""fp64: every derivative against finite differences, by activations and by weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.model import HookedTransformer
from support.gradient_cases import gradients, metric
from support.random_models import CONFIGS, random_model

TINY: dict[str, Any] = {
    "n_layers": 2, "d_model": 6, "n_heads": 2, "n_key_value_heads": 1, "d_head": 4, "d_mlp": 7,
    "d_vocab": 9,
}  # fmt: skip
TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 6, 5, 4, 3, 2]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    torch.set_num_threads(1)
    layers = CONFIGS[request.param].layers[-2:]
    changes = TINY | {"layers": layers}
    if CONFIGS[request.param].n_heads == CONFIGS[request.param].n_key_value_heads:
        changes |= {"n_key_value_heads": 2}
    return random_model(request.param, changes=changes, dtype="fp64", backend="torch")


def test_activations(model: HookedTransformer) -> None:
    embedded = model.run_with_cache(TOKENS, "hook_embed")[1]["hook_embed"].clone()

    def logits(x: torch.Tensor) -> torch.Tensor:
        hooks = [("hook_embed", lambda tensor, hook: x)]
        result: torch.Tensor = model.run_with_hooks(TOKENS, hooks, attention_mask=MASK)
        return result.sum(1)

    assert torch.autograd.gradcheck(logits, (embedded.requires_grad_(),), fast_mode=True)


def test_weights(model: HookedTransformer) -> None:
    parameters = dict(model.named_parameters())

    def loss(*values: torch.Tensor) -> torch.Tensor:
        arguments = {"attention_mask": MASK, "return_type": "loss"}
        state = dict(zip(parameters, values, strict=True))
        result: torch.Tensor = torch.func.functional_call(model, state, (TOKENS,), arguments)
        return result

    assert torch.autograd.gradcheck(loss, tuple(parameters.values()), fast_mode=True)
    found = torch.autograd.grad(loss(*parameters.values()), list(parameters.values()))
    assert all(x.any() for x in found)


def test_backward_hooks_see_those_derivatives(model: HookedTransformer) -> None:
    """The gradient at a hook is that of adding to its activation."""
    name = "blocks.1.attn.hook_z"
    shape = model.run_with_cache(TOKENS, name)[1][name].shape
    added = torch.zeros(shape, dtype=torch.float64, requires_grad=True)

    def number(x: torch.Tensor) -> torch.Tensor:
        hooks = [(name, lambda tensor, hook: tensor + x)]
        return metric(model.run_with_hooks(TOKENS, hooks, attention_mask=MASK))

    assert torch.autograd.gradcheck(number, (added,), fast_mode=True)
    number(added).backward()
    assert torch.equal(added.grad, gradients(model, TOKENS, [name], MASK)[name])
