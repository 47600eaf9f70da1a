"""What soft caps mean to hooks, addresses, overrides, contracts and generation of a model."""

from __future__ import annotations

import dataclasses
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.config_error import ConfigError
from bitlens.model.hooks.registry import same_bits
from bitlens.model.ops.kernels import soft_cap
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.oracle import check
from support.random_models import CONFIGS, random_checkpoint, random_model

TOKENS_BP = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(3))
CONFIG = CONFIGS["gemma2"]
SCORES = "blocks.1.attn.hook_attn_scores"


def uncapped(**options: Any) -> HookedTransformer:
    """The same weights without caps."""
    checkpoint = random_checkpoint("gemma2")
    config = dataclasses.replace(CONFIG, attn_logit_softcap=None, final_logit_softcap=None)
    return bitlens.load(dataclasses.replace(checkpoint, config=config), **options)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_unembed_hook_out_comes_before_the_cap(dtype: str) -> None:
    """As in TransformerLens; what the model returns comes after it."""
    model = random_model("gemma2", dtype=dtype)
    logits, cache = model.run_with_cache(TOKENS_BP, "unembed.hook_out")
    raw = cache["unembed.hook_out"]
    cap = CONFIG.final_logit_softcap
    assert cap is not None
    assert float(raw.abs().max()) > cap >= float(logits.abs().max())
    assert same_bits(logits, soft_cap(raw, cap))
    assert model.soft_cap is not None
    assert same_bits(model.soft_cap(model.unembed(model.ln_final(_resid(model)))), logits)
    assert same_bits(model.forward_last(TOKENS_BP), logits[:, -1])
    assert same_bits(model.forward_last_slice(TOKENS_BP), logits[:, -1])


def _resid(model: HookedTransformer) -> torch.Tensor:
    name = f"blocks.{CONFIG.n_layers - 1}.hook_resid_post"
    _, cache = model.run_with_cache(TOKENS_BP, name)
    return cache[name]


def test_an_edit_of_the_logits_goes_on_through_the_cap() -> None:
    model = random_model("gemma2")

    def large(tensor: torch.Tensor, *, hook: Any) -> None:
        tensor[..., 7] = 1e6

    with model.hooks([("unembed.hook_out", large)]):
        logits = model(TOKENS_BP)
        tokens = model.generate(TOKENS_BP, max_new_tokens=3, temperature=0.0).tokens
    assert bool((logits[..., 7] == CONFIG.final_logit_softcap).all())
    assert bool((tokens[:, 9:] == 7).all())


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_scores_are_shown_capped_and_masked_after(backend: str) -> None:
    # Of block 0: the blocks after it have other inputs in each model.
    first = SCORES.replace("1", "0")
    _, capped = random_model("gemma2", backend=backend).run_with_cache(TOKENS_BP, first)
    _, plain = uncapped(backend=backend).run_with_cache(TOKENS_BP, first)
    scores, raw, cap = capped[first], plain[first], CONFIG.attn_logit_softcap
    assert cap is not None
    assert torch.equal(scores.isneginf(), raw.isneginf())
    seen = scores.isfinite()
    assert float(raw[seen].abs().max()) > cap
    torch.testing.assert_close(scores[seen], cap * torch.tanh(raw[seen] / cap))


def test_edited_scores_are_not_capped_again() -> None:
    """An edit of what softmax reads is what softmax reads."""
    model = random_model("gemma2")

    def to_key_0(tensor: torch.Tensor, *, hook: Any) -> None:
        tensor[..., 0] = 100.0  # in a layer without a window every row sees key 0

    with model.hooks([(SCORES, to_key_0)]):
        _, cache = model.run_with_cache(TOKENS_BP, SCORES.replace("attn_scores", "pattern"))
    (pattern,) = cache.values()
    assert bool((pattern[..., 0] == 1).all())


def test_the_cap_has_an_address_of_its_own_where_there_is_one() -> None:
    model = random_model("gemma2")
    assert model.op_addresses[-2:] == ["unembed", "soft_cap"]
    assert "soft_cap" not in uncapped().op_addresses
    assert uncapped().soft_cap is None
    plain = model(TOKENS_BP)

    def without(original: Any, x: torch.Tensor, cap: float) -> torch.Tensor:
        return x

    with model.override("soft_cap", without):
        raw = model(TOKENS_BP)
        assert same_bits(model.forward_last_slice(TOKENS_BP), raw[:, -1])
    assert not same_bits(raw, plain)
    assert same_bits(soft_cap(raw, 2.0), plain)


@pytest.mark.parametrize("address", ["blocks.0.attn.attention", "soft_cap"])
def test_contracts_judge_the_capped_formula(address: str) -> None:
    """The control: the same results break the contract of the formula with another cap."""
    model, verdicts = random_model("gemma2"), []
    site = model.site(address)

    def judge(original: Any, *args: Any, **kwargs: Any) -> Any:
        result, inputs = original(*args, **kwargs), site.bind(*args, **kwargs)
        for cap in (inputs["cap"], inputs["cap"] * (1 + 1e-3)):
            changed = inputs | {"cap": cap}
            verdicts.append(check(site.view(result), changed, site.contract).ok)
        return result

    with model.override(address, judge):
        model(TOKENS_BP[0])
    assert verdicts == [True, False]


def test_transformer_lens_names() -> None:
    cfg = random_model("gemma2").cfg
    assert (cfg.attn_scores_soft_cap, cfg.output_logits_soft_cap) == (1.5, 2.0)
    cfg = uncapped().cfg
    assert (cfg.attn_scores_soft_cap, cfg.output_logits_soft_cap) == (-1.0, -1.0)


def test_hf_bf16_is_refused() -> None:
    checkpoint = random_checkpoint("llama", final_logit_softcap=30.0)
    with pytest.raises(ConfigError, match="rounds in llama with soft caps is not stated"):
        bitlens.load(checkpoint, dtype="hf_bf16", backend="torch")
