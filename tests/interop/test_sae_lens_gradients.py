"""Gradients through SAELens's SAEs in our model, on the native backend."""

from __future__ import annotations

from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.interop.sae_lens_model import SAELensModel
from support.random_models import BOS, byte_tokenizer, random_checkpoint
from support.sae_lens_cases import hooked_sae_transformer, random_sae

CHECKPOINT = random_checkpoint("llama", tokenizer=byte_tokenizer())
HOOK = "blocks.1.hook_resid_post"
INSIDE = f"{HOOK}.hook_sae_acts_post"
TOKENS = torch.tensor([[BOS, 3, 1, 4, 1, 5], [BOS, 9, 2, 6, 5, 3]])
TOLERANCE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture
def sae() -> Any:
    return random_sae(HOOK, CHECKPOINT.config.d_model)


@pytest.fixture
def model() -> SAELensModel:
    return SAELensModel(bitlens.load(CHECKPOINT))


@pytest.fixture
def lens(model: SAELensModel) -> Any:
    return hooked_sae_transformer(CHECKPOINT, model)


@pytest.mark.parametrize("use_error_term", [True, False])
def test_an_sae_is_trained_through_the_model(
    use_error_term: bool, model: SAELensModel, lens: Any, sae: Any
) -> None:
    found = []
    for each in (model, lens):
        sae.zero_grad()
        with each.saes([sae], use_error_term=use_error_term):
            each(TOKENS, return_type="loss").backward()
        found.append({name: p.grad.clone() for name, p in sae.named_parameters()})
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], **TOLERANCE)
        assert bool(grad.any()), name


def test_gradients_at_hooks_and_inside(model: SAELensModel, lens: Any, sae: Any) -> None:
    earlier = "blocks.1.hook_resid_pre"
    names = [earlier, INSIDE]
    lens.requires_grad_(True)
    kept: list[dict[str, torch.Tensor]] = []
    for each in (model, lens):
        found: dict[str, torch.Tensor] = {}

        def keep(grad: torch.Tensor, hook: Any, found: Any = found) -> None:
            found[hook.name] = grad.clone()

        hooks = [(name, keep) for name in names]
        with each.saes([sae], use_error_term=True), each.hooks(bwd_hooks=hooks):
            each(TOKENS, return_type="loss").backward()
        kept.append(found)
    for name in names:
        torch.testing.assert_close(kept[0][name], kept[1][name], **TOLERANCE)
    with model.saes([sae], use_error_term=True):
        _, cache = model.run_with_cache(TOKENS, names, return_type="loss", incl_bwd=True)
    for name in names:
        assert torch.equal(cache[f"{name}_grad"], kept[0][name])


def test_where_there_are_no_gradients(model: SAELensModel, sae: Any) -> None:
    options = {"saes": [sae], "return_type": "loss", "incl_bwd": True}
    with torch.no_grad(), pytest.raises(ValueError, match=r"incl_bwd.*torch\.no_grad"):
        model.run_with_cache_with_saes(TOKENS, **options)
    other = SAELensModel(bitlens.load(CHECKPOINT, dtype="hf_bf16"))
    with pytest.raises(ValueError, match=r"computes no gradients here.*under torch\.no_grad"):
        other.run_with_saes(TOKENS, saes=[sae])
    with torch.no_grad():
        assert not other.run_with_saes(TOKENS, saes=[sae]).requires_grad
    with model.saes([sae]), pytest.raises(ValueError, match="no gradient flows through"):
        model.run_with_hooks(TOKENS, bwd_hooks=[(f"{HOOK}.hook_sae_error", print)])
