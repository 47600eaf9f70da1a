"""Models that PEFT adapted: the adapted module is named; loading them says what to do instead."""

from __future__ import annotations

from typing import Any

import bitlens
import peft
import pytest
import torch
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from bitlens.model.weights.checkpoint import CheckpointError
from bitlens.precision.divergence import first_divergence
from support.transformers_models import TOKENS, llama

ADAPTERS = {
    "lora": (
        peft.LoraConfig(
            r=4, target_modules=["v_proj"], layers_to_transform=[1], init_lora_weights=False
        ),
        ("blocks.1.attn.v",),
    ),
    "dora": (
        peft.LoraConfig(r=4, target_modules=["gate_proj"], use_dora=True, init_lora_weights=False),
        ("blocks.0.mlp.gate", "blocks.1.mlp.gate"),
    ),
    "lora of the vocabulary": (
        peft.LoraConfig(r=4, target_modules=["embed_tokens", "lm_head"], init_lora_weights=False),
        ("embed", "unembed"),
    ),
    "ia3": (
        peft.IA3Config(
            target_modules=["v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
            init_ia3_weights=False,
        ),
        ("blocks.0.attn.v", "blocks.0.mlp.down", "blocks.1.attn.v", "blocks.1.mlp.down"),
    ),
    "loha": (
        peft.LoHaConfig(r=4, target_modules=["q_proj"], init_weights=False),
        ("blocks.0.attn.q", "blocks.1.attn.q"),
    ),
}


def _adapted(raw: Any, adapter: str) -> Any:
    torch.manual_seed(1)
    made: Any = peft.get_peft_model(raw, ADAPTERS[adapter][0])
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_adapted_module_is_named(adapter: str) -> None:
    raw = llama()
    ours = bitlens.load(raw)
    peer = TransformersAddresses(_adapted(raw, adapter))
    found = first_divergence(ours, peer, TOKENS, "lockstep")
    assert found.created == ADAPTERS[adapter][1]
    assert not found.meaning


def test_an_adapter_that_adds_nothing_is_not_named() -> None:
    raw = llama()
    ours = bitlens.load(raw)
    fresh = peft.get_peft_model(raw, peft.LoraConfig(r=4, target_modules=["v_proj"])).eval()
    assert first_divergence(ours, TransformersAddresses(fresh), TOKENS, "lockstep").created == ()


def test_loading_says_to_merge_and_a_merged_model_is_the_adapted_one() -> None:
    raw = llama()
    adapted = _adapted(raw, "lora")
    with pytest.raises(TypeError, match="merge_and_unload"):
        bitlens.load(adapted)
    with pytest.raises(CheckpointError, match="merge_and_unload"):
        bitlens.load(raw)
    base = raw.model.layers[1].self_attn.v_proj.base_layer.weight.clone()
    merged = adapted.merge_and_unload()
    assert not torch.equal(base, merged.model.layers[1].self_attn.v_proj.weight)
    peer = TransformersAddresses(merged)
    assert first_divergence(bitlens.load(merged), peer, TOKENS, "lockstep").created == ()
