"""Every address of a model in terms of its contract: inputs, outputs, and the contract kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from bitlens.model.cache.kv_cache import KVCache
from bitlens.model.ops.policy import NATIVE_POLICIES
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.addresses import Site
from bitlens.precision.emulation import emulate
from bitlens.precision.faults import FAULTS
from bitlens.precision.inject import inject_fault
from bitlens.precision.oracle import check
from support.random_models import CONFIGS, random_model

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])


def visited(
    model: HookedTransformer, run: Callable[[], Any], look: Callable[[Site, Any, Any, Any], None]
) -> set[str]:
    """Calls look(site, result, args, kwargs) at every operation of a pass."""
    seen = set()

    def at(site: Site) -> Callable[..., Any]:
        def visit(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            seen.add(site.address)
            look(site, result, args, kwargs)
            return result

        return visit

    with ExitStack() as stack, torch.no_grad():
        for address in model.op_addresses:
            stack.enter_context(model.override(address, at(model.site(address))))
        run()
    return seen


def keeps_its_contract(site: Site, result: Any, args: Any, kwargs: Any) -> None:
    inputs = site.bind(*args, **kwargs)
    viewed = site.view(result)
    verdict = check(viewed, inputs, site.contract)
    assert verdict.ok, f"{site.address}: {verdict.reason}"
    emulated = emulate(inputs, site.contract)
    assert emulated.shape == viewed.shape
    assert emulated.dtype == viewed.dtype or _is_kept_wider(site)
    back = site.restore(viewed.double(), result)
    assert back.dtype == result.dtype
    assert torch.equal(back, result)


def _is_kept_wider(site: Site) -> bool:
    """The logits of hf_bf16: bf16 numbers in fp32."""
    return site.address == "unembed" and site.contract.output_format.name == "bf16"


@pytest.mark.parametrize(
    ("architecture", "backend", "dtype"),
    [
        (name, backend, dtype)
        for backend, names in (
            ("native", CONFIGS),
            ("torch", ("qwen2", "gemma2", "gemma3", "llama-scaled-rope")),
        )
        for name in names
        for dtype in NATIVE_POLICIES
        if (name, dtype) != ("gemma2", "hf_bf16")  # refused: its soft caps
    ],
)
def test_every_operation_keeps_its_contract(architecture: str, backend: str, dtype: str) -> None:
    model = random_model(architecture, dtype=dtype, backend=backend)
    seen = visited(model, lambda: model(TOKENS), keeps_its_contract)
    assert seen == set(model.op_addresses)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_attention_over_cached_keys_is_bound_with_its_past(backend: str) -> None:
    model = random_model("mistral", backend=backend)
    cache: KVCache = model.new_cache()
    model(TOKENS[:7], kv_cache=cache)

    def look(site: Site, result: Any, args: Any, kwargs: Any) -> None:
        if site.address.endswith("attention"):
            inputs = site.bind(*args, **kwargs)
            assert inputs["past"] == 7
            assert inputs["k"].shape[1] == 10
        keeps_its_contract(site, result, args, kwargs)

    visited(model, lambda: model(TOKENS[7:], kv_cache=cache), look)


def test_operands_are_the_activations_among_the_inputs() -> None:
    model = random_model("qwen3")
    names = {
        "matmul": ("a",),
        "rms_norm": ("x",),
        "rope": ("x",),
        "attention": ("q", "k", "v"),
        "swiglu": ("gate", "up"),
    }

    def look(site: Site, result: Any, args: Any, kwargs: Any) -> None:
        assert site.operands is not None
        operands = site.operands(*args, **kwargs)
        if site.address == "embed" or "resid" in site.address:
            assert len(operands) == (0 if site.address == "embed" else 2)
            return
        inputs = site.bind(*args, **kwargs)
        bound = [inputs[name] for name in names[site.contract.op]]
        assert all(torch.equal(x, y) for x, y in zip(operands, bound, strict=True))

    visited(model, lambda: model(TOKENS), look)


def test_batches_can_be_viewed_but_attention_is_bound_one_sequence_at_a_time() -> None:
    model = random_model("llama")

    def look(site: Site, result: Any, args: Any, kwargs: Any) -> None:
        if not site.address.endswith("attention"):
            keeps_its_contract(site, result, args, kwargs)
            return
        assert torch.equal(site.restore(site.view(result), result), result)
        with pytest.raises(ValueError, match="attention of 2 sequences"):
            site.bind(*args, **kwargs)

    visited(model, lambda: model(TOKENS.view(2, 5)), look)


def test_an_operation_cut_open_by_a_hook_is_refused() -> None:
    model = random_model("llama")

    def double(tensor: torch.Tensor, *, hook: Any) -> torch.Tensor:
        return tensor * 2

    for hook, address in (
        ("blocks.1.ln2.hook_scale", "blocks.1.ln2"),
        ("blocks.1.attn.hook_attn_scores", "blocks.1.attn.attention"),
    ):
        with (
            model.hooks([(hook, double)]),
            inject_fault(model, "flush_to_zero", at=address),
            pytest.raises(ValueError, match="a hook edited the inside"),
        ):
            model(TOKENS)


def test_unknown_addresses_come_with_near_ones() -> None:
    model = random_model("llama")
    with pytest.raises(KeyError, match=r"did you mean 'blocks\.1\.mlp\.down'"):
        model.site("blocks.1.mlp.dwn")
    with (
        pytest.raises(KeyError, match="no operation is called"),
        inject_fault(model, "flush_to_zero", at="blocks.9.ln1"),
    ):
        pass


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_fault_reaches_the_logits_and_is_gone_afterwards(dtype: str) -> None:
    model = random_model("llama", dtype=dtype)
    before = model(TOKENS)
    reached = set()
    for address in (
        "blocks.0.ln1",
        "blocks.0.attn.rope_q",
        "blocks.1.mlp.down",
        "blocks.1.mlp.act",
    ):
        for fault in FAULTS.values():
            if not fault.applies_to(model.site(address).contract):
                with (
                    pytest.raises(ValueError, match="nothing to bend"),
                    inject_fault(model, fault, at=address),
                ):
                    pass
                continue
            with inject_fault(model, fault.name, at=address):
                if not torch.equal(model(TOKENS), before):
                    reached.add(fault.name)
            assert torch.equal(model(TOKENS), before)
    expected = {"low_precision_accumulator"} | (
        {"tf32_inputs", "fma_contraction"}
        if dtype == "fp32"
        else {"missing_upcast", "truncating_cast", "extra_cast", "rounded_statistic"}
    )
    assert expected <= reached
