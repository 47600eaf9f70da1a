"""Hugging Face's Llama family under bitlens's addresses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from bitlens.model.interop.transformers_llama import transformers_llama
from bitlens.precision.addresses import Site
from bitlens.precision.divergence import first_divergence
from bitlens.precision.inject import inject_fault
from bitlens.precision.oracle import check
from support.random_models import random_checkpoint

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
_SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 96,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**_SHAPE, attention_bias=True, mlp_bias=True),
    "mistral": lambda: transformers.MistralConfig(**_SHAPE, sliding_window=5),
    "qwen2": lambda: transformers.Qwen2Config(
        **_SHAPE, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "qwen3": lambda: transformers.Qwen3Config(**_SHAPE),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_SHAPE, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
}


def model_of(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"attn_implementation": "eager"} | options
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=dtype, **options)
    return model.requires_grad_(False).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_watching_changes_no_bit_and_every_operation_keeps_its_contract(
    name: str, dtype: torch.dtype
) -> None:
    raw = model_of(name, dtype)
    before = raw(TOKENS[None]).logits
    model, seen = TransformersAddresses(raw), set()

    def at(site: Site) -> Callable[..., Any]:
        def visit(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            seen.add(site.address)
            value, inputs = site.view(result), site.bind(*args, **kwargs)
            verdict = check(value, inputs, site.contract)
            assert verdict.ok, f"{site.address}: {verdict.reason}"
            assert site.operands is not None
            activations = [x for x in inputs.values() if isinstance(x, torch.Tensor)]
            for x in site.operands(*args, **kwargs):
                known = any(x.shape == y.shape and torch.equal(x, y) for y in activations)
                assert known or "resid" in site.address
            return site.restore(value.double(), result)

        return visit

    with ExitStack() as stack:
        for address in model.op_addresses:
            stack.enter_context(model.override(address, at(model.site(address))))
        assert torch.equal(model(TOKENS), before)
    assert seen == set(model.op_addresses)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in raw.modules())
    assert torch.equal(raw(TOKENS[None]).logits, before)


def test_addresses_are_those_of_bitlens() -> None:
    checkpoint = random_checkpoint("llama")
    peer = TransformersAddresses(transformers_llama(checkpoint, torch.float32))
    assert peer.op_addresses == bitlens.load(checkpoint).op_addresses


@pytest.mark.parametrize("shape", [(10,), (2, 5)])
@pytest.mark.parametrize("policy", ["fp32", "bf16"])
def test_two_implementations_differ_in_the_casts_they_declare(
    policy: str, shape: tuple[int, ...]
) -> None:
    checkpoint = random_checkpoint("llama")
    ours = bitlens.load(checkpoint, dtype=policy)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[policy]
    peer = TransformersAddresses(transformers_llama(checkpoint, dtype))
    for a, b in ((ours, peer), (peer, ours)):
        found = first_divergence(a, b, TOKENS.view(shape), "lockstep")
        assert len(found.table) == len(ours.op_addresses)
        kinds = {address.rpartition(".")[2] for address in found.created}
        # In bf16 Hugging Face rounds inside these four; in fp32 nowhere.
        expected = {"ln1", "ln2", "ln_final", "rope_q", "rope_k", "attention", "act"}
        assert kinds == (expected if policy == "bf16" else set())


def test_a_fault_in_the_peer_is_named_among_its_own_differences() -> None:
    checkpoint = random_checkpoint("llama")
    clean, faulty = (
        TransformersAddresses(transformers_llama(checkpoint, torch.bfloat16)) for _ in range(2)
    )
    for at, fault in (
        ("blocks.1.mlp.down", "low_precision_accumulator"),
        ("blocks.0.ln2", "excess_precision"),
        ("blocks.2.attn.attention", "missing_upcast"),
        ("blocks.1.resid_mid", "truncating_cast"),
        ("blocks.0.attn.rope_k", "excess_precision"),
    ):
        with inject_fault(faulty, fault, at=at):
            assert first_divergence(clean, faulty, TOKENS, "lockstep").created == (at,)
    assert first_divergence(clean, faulty, TOKENS, "lockstep").created == ()


def test_what_is_not_supported_says_so() -> None:
    with pytest.raises(ValueError, match="float16"):
        TransformersAddresses(model_of("llama", torch.float16))
    with pytest.raises(ValueError, match="training mode"):
        TransformersAddresses(model_of("llama").train())
    gpt = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)
    )
    with pytest.raises(TypeError, match="GPT2LMHeadModel: addresses are known for Llama"):
        TransformersAddresses(gpt)
    capped = model_of("gemma3")
    capped.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        TransformersAddresses(capped)
    wrapped = model_of("llama")
    wrapped.model.layers[1].mlp.down_proj = torch.nn.Sequential(torch.nn.Linear(80, 48))
    with pytest.raises(TypeError, match=r"blocks\.1\.mlp\.down is a Sequential"):
        TransformersAddresses(wrapped)
    with pytest.raises(KeyError, match=r"'blocks\.1\.ln1'"):
        TransformersAddresses(model_of("llama")).site("blocks.1.ln")
