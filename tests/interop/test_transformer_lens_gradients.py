"""Gradients beside TransformerLens: the same names, shapes and, within both bounds, numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.hooks.registry import has_key_axis
from support.error_bounds import Rounding
from support.gradient_bounds import GradientBounds
from support.gradient_cases import gradients, metric
from support.random_models import random_checkpoint
from support.transformer_lens_peer import transformer_lens_llama
from transformer_lens import HookedTransformer

CHECKPOINT = random_checkpoint("llama")
TOKENS = torch.tensor([3, 141, 59, 26, 53, 58, 97])
NAMES = [
    "hook_embed",
    "blocks.0.hook_resid_pre",
    "blocks.0.hook_attn_out",
    "blocks.0.hook_resid_mid",
    "blocks.0.hook_mlp_out",
    "blocks.1.ln2.hook_scale",  # its ln1 runs three times, and each time has a part
    "blocks.1.ln2.hook_normalized",
    *(f"blocks.1.attn.hook_{part}" for part in ("q", "k", "v", "z", "rot_q", "rot_k")),
    "blocks.1.attn.hook_attn_scores",
    "blocks.1.attn.hook_pattern",
    "blocks.1.mlp.hook_pre",
    "blocks.1.mlp.hook_pre_linear",
    "blocks.1.mlp.hook_post",
    "ln_final.hook_normalized",
]


@pytest.fixture(scope="module")
def lens() -> HookedTransformer:
    return transformer_lens_llama(CHECKPOINT, use_attn_result=False).requires_grad_(True)


@pytest.fixture(autouse=True)
def _clean(lens: HookedTransformer) -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    lens.reset_hooks()
    lens.zero_grad()


def theirs(lens: HookedTransformer) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def keep(grad: torch.Tensor, hook: Any) -> None:
        found[hook.name] = grad.detach().clone()

    hooks = [(name, keep) for name in NAMES]
    # It takes its hooks off again at the end, before backward() could come to them.
    logits = lens.run_with_hooks(TOKENS[None], bwd_hooks=hooks, reset_hooks_end=False)
    metric(logits).backward()
    return found


def test_gradients_agree_within_both_bounds(lens: HookedTransformer) -> None:
    expected, found = theirs(lens), gradients(bitlens.load(CHECKPOINT), TOKENS[None], NAMES)
    both = []
    for rounding in (Rounding(), Rounding(angles=True)):
        double = bitlens.load(CHECKPOINT, dtype="fp64", backend="torch")
        both.append(GradientBounds(double, TOKENS, NAMES, rounding))
    assert expected.keys() == found.keys()
    for name, ours in found.items():
        other = expected[name]
        assert ours.shape == other.shape
        error = (ours.double() - other.double()).abs()
        if has_key_axis(name):  # masked keys have no gradient here
            error = error.tril()
        worst = error.flatten().topk(2).indices
        bound = sum(each.bound(name, worst) for each in both)
        assert (error.flatten()[worst] <= bound).all(), name


def test_incl_bwd_keeps_the_same_names_and_shapes(lens: HookedTransformer) -> None:
    _, expected = lens.run_with_cache(TOKENS[None], return_type="loss", incl_bwd=True)
    _, cache = bitlens.load(CHECKPOINT).run_with_cache(
        TOKENS[None], return_type="loss", incl_bwd=True
    )
    of_theirs = {name: x.shape for name, x in expected.items() if name.endswith("_grad")}
    of_ours = {name: x.shape for name, x in cache.items() if name.endswith("_grad")}
    gated = ("attn.hook_result_grad", "hook_mlp_in_grad")  # behind flags that the peer has set
    missing = {name for name in of_theirs if name not in of_ours and not name.endswith(gated)}
    assert not missing
    assert all(of_ours[name] == shape for name, shape in of_theirs.items() if name in of_ours)
