"""A transformers model whose code was changed: the change is named, or nothing is concluded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bitlens
import pytest
import torch
import torch.nn.functional as F
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from bitlens.precision.addresses import UnobservedError
from bitlens.precision.divergence import first_divergence
from support.transformers_models import TOKENS, llama
from torch import nn
from transformers.models.llama import modeling_llama


@contextmanager
def patched(kind: Any, forward: Callable[..., Any]) -> Iterator[None]:
    own = kind.forward
    kind.forward = forward
    try:
        yield
    finally:
        kind.forward = own


def _swapped_gate(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))


def _residual_after_norm(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    residual = self.input_layernorm(hidden_states)
    hidden_states = residual + self.self_attn(hidden_states=residual, **kwargs)[0]
    residual = self.post_attention_layernorm(hidden_states)
    return residual + self.mlp(residual)


def _norm_in_half(self: Any, x: torch.Tensor) -> torch.Tensor:
    half = x.half()
    scale = torch.rsqrt(half.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * (half * scale).to(x.dtype)


PATCHES = {
    "gate and up exchanged": (modeling_llama.LlamaMLP, _swapped_gate, "blocks.0.mlp.act"),
    "residual after the norm": (
        modeling_llama.LlamaDecoderLayer,
        _residual_after_norm,
        "blocks.0.resid_mid",
    ),
    "norm in fp16": (modeling_llama.LlamaRMSNorm, _norm_in_half, "blocks.0.ln1"),
}


@pytest.mark.parametrize("name", PATCHES)
@pytest.mark.parametrize("mode", ["free", "lockstep"])
def test_a_patched_class_is_named(name: str, mode: Any) -> None:
    kind, forward, at = PATCHES[name]
    raw = llama()
    ours, plain = bitlens.load(raw), raw(TOKENS[None]).logits
    with patched(kind, forward):
        peer = TransformersAddresses(raw)
        moved = raw(TOKENS[None]).logits
        found = first_divergence(ours, peer, TOKENS, mode, judge="contract")
        with peer.override("embed", lambda original, *args: original(*args)):
            assert torch.equal(peer(TOKENS), moved)
    assert not torch.equal(moved, plain)
    assert found.first == at
    assert first_divergence(ours, peer, TOKENS, mode, judge="contract").first is None


def _reordered(self: Any, x: torch.Tensor) -> torch.Tensor:
    up = self.up_proj(x)
    gate = self.gate_proj(x)
    return self.down_proj(F.silu(gate, inplace=True).mul_(up))


def _in_place_layer(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    hidden_states += self.self_attn(self.input_layernorm(hidden_states), **kwargs)[0]
    hidden_states += self.mlp(self.post_attention_layernorm(hidden_states))
    return hidden_states


def _rope_by_complex_numbers(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    half = q.shape[-1] // 2
    turn = torch.complex(cos[..., :half], sin[..., :half])[:, None]

    def turned(x: torch.Tensor) -> torch.Tensor:
        y = torch.complex(x[..., :half], x[..., half:]) * turn
        return torch.cat([y.real, y.imag], -1)

    return turned(q), turned(k)


@pytest.mark.parametrize("mode", ["free", "lockstep"])
@pytest.mark.parametrize("twin", ["mlp", "layer", "rope"])
def test_a_correct_twin_is_acquitted(twin: str, mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = llama()
    ours = bitlens.load(raw)
    if twin == "rope":
        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", _rope_by_complex_numbers)
    else:
        kind, forward = {
            "mlp": (modeling_llama.LlamaMLP, _reordered),
            "layer": (modeling_llama.LlamaDecoderLayer, _in_place_layer),
        }[twin]
        monkeypatch.setattr(kind, "forward", forward)
    found = first_divergence(ours, TransformersAddresses(raw), TOKENS, mode, judge="contract")
    assert found.first is None
    assert found.meaning == ()
    assert len(found.table) == len(ours.op_addresses)


def test_one_instance_is_named() -> None:
    raw = llama()
    ours, mlp = bitlens.load(raw), raw.model.layers[1].mlp
    mlp.forward = lambda x: _swapped_gate(mlp, x)
    found = first_divergence(ours, TransformersAddresses(raw), TOKENS, "lockstep")
    assert found.created == ("blocks.1.mlp.act",)


class _Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_swapped_class_is_named() -> None:
    raw = llama()
    ours = bitlens.load(raw)
    raw.model.layers[1].self_attn.o_proj.__class__ = _Doubled
    found = first_divergence(ours, TransformersAddresses(raw), TOKENS, "lockstep")
    assert found.created == ("blocks.1.attn.o",)


@pytest.mark.parametrize("kind", ["before", "after", "before every module"])
def test_hooks_that_edit_are_named(kind: str) -> None:
    raw = llama()
    ours, module = bitlens.load(raw), raw.model.layers[1].mlp.up_proj
    if kind == "after":
        handle = module.register_forward_hook(lambda m, x, y: y * 1.5)
    elif kind == "before":
        handle = module.register_forward_pre_hook(lambda m, x: (x[0] * 1.5,))
    else:
        handle = nn.modules.module.register_module_forward_pre_hook(
            lambda m, x: (x[0] * 1.5,) if m is module else None
        )
    try:
        found = first_divergence(ours, TransformersAddresses(raw), TOKENS, "lockstep")
    finally:
        handle.remove()
    assert found.created == ("blocks.1.mlp.up",)


class _Adapter(nn.Module):
    """In the shape of peft.tuners.lora.Linear."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})
        nn.init.constant_(self.lora_B["default"].weight, scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


@pytest.mark.parametrize(("scale", "named"), [(0.0, ()), (0.1, ("blocks.1.attn.v",))])
def test_an_adapter_is_named_once_it_adds_something(scale: float, named: tuple[str, ...]) -> None:
    raw = llama()
    ours, attn = bitlens.load(raw), raw.model.layers[1].self_attn
    attn.v_proj = _Adapter(attn.v_proj, 4, scale).requires_grad_(False)
    found = first_divergence(ours, TransformersAddresses(raw), TOKENS, "lockstep")
    assert found.created == named


class _Wrapper(nn.Module):
    """In the shape of peft.PeftModel."""

    def __init__(self, model: Any, factor: float) -> None:
        super().__init__()
        self.base_model, self.factor = model, factor

    def forward(self, **kwargs: Any) -> Any:
        output = self.base_model(**kwargs)
        output["logits"] = output.logits * self.factor
        return output


@pytest.mark.parametrize(("factor", "named"), [(1.0, ()), (0.5, ("unembed",))])
def test_a_wrapped_model_is_judged_by_what_it_returns(factor: float, named: tuple[str]) -> None:
    raw = llama()
    ours, peer = bitlens.load(raw), TransformersAddresses(_Wrapper(raw, factor).eval())
    assert first_divergence(ours, peer, TOKENS, "lockstep").created == named


def test_a_masked_or_scaled_attention_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = llama()
    ours, own = bitlens.load(raw), modeling_llama.eager_attention_forward

    def bent(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **kw: Any) -> Any:
        if change == "mask":
            mask = mask.roll(1, -1)
        return own(module, q, k, v, mask, scaling * (2 if change == "scale" else 1), **kw)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", bent)
    for change, expected in (("none", None), ("mask", True), ("scale", True)):
        found = first_divergence(ours, TransformersAddresses(raw), TOKENS, "lockstep")
        assert found.first == (expected and "blocks.0.attn.attention"), change


def _fused(self: Any, x: torch.Tensor) -> torch.Tensor:
    """One product for gate and up, as kernels are written for speed."""
    both = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight]))
    gate, up = both.chunk(2, -1)
    return F.linear(F.silu(gate) * up, self.down_proj.weight)


def _fused_wrongly(self: Any, x: torch.Tensor) -> torch.Tensor:
    both = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight]))
    up, gate = both.chunk(2, -1)
    return F.linear(F.silu(gate) * up, self.down_proj.weight)


def _fused_in_low_precision(self: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = (F.linear(x, p.weight).bfloat16() for p in (self.gate_proj, self.up_proj))
    return F.linear((F.silu(gate) * up).to(x.dtype), self.down_proj.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("forward", [_fused, _fused_wrongly, _fused_in_low_precision])
def test_a_fused_mlp_is_judged_as_one(
    forward: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = llama(dtype=dtype)
    policy = {torch.float32: "fp32", torch.bfloat16: "hf_bf16"}[dtype]
    ours = bitlens.load(raw, dtype=policy)
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    peer = TransformersAddresses(raw)
    found = first_divergence(ours, peer, TOKENS[:16], "lockstep", judge="contract")
    right = forward is _fused or (forward is _fused_in_low_precision and dtype is torch.bfloat16)
    assert found.created == (() if right else ("blocks.0.mlp.down", "blocks.1.mlp.down"))
    assert found.row("blocks.0.mlp.down").op == "gated_mlp"
    assert {address.rpartition(".")[2] for address in found.only_a} == {"gate", "up", "act"}


def test_a_module_fused_later_is_refused_by_name() -> None:
    raw = llama()
    ours, peer = bitlens.load(raw), TransformersAddresses(raw)
    with (
        patched(modeling_llama.LlamaMLP, _fused),
        pytest.raises(UnobservedError, match=r"blocks\.0\.mlp\.down did not run"),
    ):
        first_divergence(ours, peer, TOKENS)


def test_a_sum_for_attention_is_named_as_the_whole_module(monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        v = F.linear(hidden_states, self.v_proj.weight).repeat(1, 1, 2)
        return self.o_proj(v.cumsum(1)), None

    raw = llama()
    ours = bitlens.load(raw)
    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", fused)
    found = first_divergence(ours, TransformersAddresses(raw), TOKENS, "lockstep")
    assert found.created == ("blocks.0.attn.o", "blocks.1.attn.o")
    assert "created by blocks.0.attn, one unit: LlamaAttention" in repr(found)


def test_compiled_code_is_refused_by_name() -> None:
    raw = llama()
    with pytest.raises(TypeError, match=r"OptimizedModule is compiled.*_orig_mod"):
        TransformersAddresses(torch.compile(raw))
    raw.model.layers[1].mlp.compile()
    with pytest.raises(TypeError, match=r"model\.layers\.1\.mlp is compiled"):
        TransformersAddresses(raw)
    raw = llama()
    norm = raw.model.norm
    norm.forward = torch.compile(norm.forward)
    with pytest.raises(TypeError, match=r"model\.norm is compiled"):
        TransformersAddresses(raw)


def test_a_model_that_is_not_deterministic_is_refused() -> None:
    raw = llama()
    ours = bitlens.load(raw)
    raw.model.norm.register_forward_hook(lambda m, x, y: y + 1e-3 * torch.rand(()))
    with pytest.raises(UnobservedError, match="model_b is not deterministic"):
        first_divergence(ours, TransformersAddresses(raw), TOKENS)


def test_a_model_that_notices_hooks_is_refused() -> None:
    def looking(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return y if self.down_proj._forward_hooks else 1.1 * y

    raw = llama()
    ours = bitlens.load(raw)
    with (
        patched(modeling_llama.LlamaMLP, looking),
        pytest.raises(UnobservedError, match="watching its operations changes its logits"),
    ):
        first_divergence(ours, TransformersAddresses(raw), TOKENS)


def test_an_operation_that_runs_twice_is_refused() -> None:
    def twice(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.up_proj(x)
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))

    raw = llama()
    peer = TransformersAddresses(raw)
    with (
        patched(modeling_llama.LlamaMLP, twice),
        peer.override("embed", lambda original, *args: original(*args)),
        pytest.raises(UnobservedError, match=r"blocks\.0\.mlp\.up ran more than once"),
    ):
        peer(TOKENS)
    with pytest.raises(RuntimeError, match="has run already"):  # noqa: SIM117
        with peer.override("ln_final", lambda original, x: original(x + 1)):
            peer(TOKENS)
