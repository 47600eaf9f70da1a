"""Audits of transformers models in memory, as they came and as somebody patched them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.audit import AuditResult, Plan, render, run_audit
from bitlens.precision.addresses import UnobservedError
from support.speaking_llama import write_speaking_llama
from transformers.models.llama import modeling_llama

PLAN = Plan(tokens=20, checked=1, rows=4)
PROMPTS = ["Once upon", "def f(x):", "The cat sat on the mat and"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    return write_speaking_llama(tmp_path_factory.mktemp("llama"), rope_parameters=rope)


def peer(source: Path) -> Any:
    factory: Any = transformers.AutoModelForCausalLM
    return factory.from_pretrained(source, attn_implementation="eager", dtype=torch.float32).eval()


def audited(source: Path, model: Any) -> AuditResult:
    return run_audit(str(source), "fp32", model, PROMPTS, PLAN)


def test_a_stock_model_is_audited_as_hf_is(source: Path) -> None:
    here = audited(source, peer(source)).to_dict()
    named = run_audit(str(source), "fp32", "hf", PROMPTS, PLAN).to_dict()
    assert here["ok"]
    assert here["meaning"] == []
    assert here["setting"].pop("b") == "LlamaForCausalLM in memory"
    assert named["setting"].pop("b") == "hf"
    for part in ("setting", "ops", "histograms", "divergence", "flips"):
        assert here[part] == named[part], part


def _swapped_gate(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))


def _residual_after_norm(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    residual = self.input_layernorm(hidden_states)
    hidden_states = residual + self.self_attn(hidden_states=residual, **kwargs)[0]
    residual = self.post_attention_layernorm(hidden_states)
    return residual + self.mlp(residual)


@pytest.mark.parametrize(
    ("kind", "forward", "at"),
    [
        (modeling_llama.LlamaMLP, _swapped_gate, "blocks.0.mlp.act"),
        (modeling_llama.LlamaDecoderLayer, _residual_after_norm, "blocks.0.resid_mid"),
    ],
)
def test_the_patched_module_is_named_first(
    kind: Any, forward: Any, at: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = peer(source)
    monkeypatch.setattr(kind, "forward", forward)
    result = audited(source, model)
    assert not result.ok
    assert result.violated[0].address == result.divergence.first == at
    assert result.flips.flips > 0
    assert result.flips.broken_certificates == 0


def _theta_ignored(model: Any) -> None:
    half = torch.arange(0, 16, 2, dtype=torch.float32) / 16
    model.model.rotary_emb.inv_freq = 1.0 / 10000.0**half


def _positions_from_one(model: Any) -> None:
    rotary = model.model.rotary_emb
    own = rotary.forward
    rotary.forward = lambda x, position_ids: own(x, position_ids + 1)


def _whole_mask(model: Any) -> None:
    for layer in model.model.layers:
        own = layer.self_attn.forward

        def forward(*args: Any, own: Any = own, **kwargs: Any) -> Any:
            mask = torch.zeros_like(kwargs.pop("attention_mask"))
            return own(*args, attention_mask=mask, **kwargs)

        layer.self_attn.forward = forward


def _scale(model: Any) -> None:
    model.model.layers[1].self_attn.scaling = 0.3


def _epsilon(model: Any) -> None:
    model.model.norm.variance_epsilon = 0.01


@pytest.mark.parametrize(
    ("change", "meaning", "at"),
    [
        (_theta_ignored, "RoPE base 10000 against 500000 at blocks.0.attn.rope_q and 3 more",
         "blocks.0.attn.rope_q"),
        (_positions_from_one, "RoPE frequencies none that gives cos", "blocks.0.attn.rope_q"),
        (_whole_mask, None, "blocks.0.attn.attention"),
        (_scale, "attention scale 0.3 against 0.25 at blocks.1.attn.attention",
         "blocks.1.attn.attention"),
        (_epsilon, "norm epsilon 0.01 against 1e-06 at ln_final", "ln_final"),
    ],
)  # fmt: skip
def test_what_is_derived_is_judged(
    change: Callable[[Any], object], meaning: str | None, at: str, source: Path
) -> None:
    """As meaning, where the model's own modules say so, and by the contract in any case."""
    model = peer(source)
    change(model)
    result = audited(source, model)
    assert not result.ok
    assert result.violated[0].address == at
    if meaning is not None:
        assert str(result.meaning[0]).startswith(meaning)
        assert meaning in render(result)
        found = json.loads(result.to_json())["meaning"][0]
        assert found["addresses"][0] == at


def _bf16_softmax(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any) -> Any:
    group = module.num_key_value_groups
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    scores = q @ k.repeat_interleave(group, 1).mT * scaling
    pattern = scores.bfloat16().masked_fill(~seen, -torch.inf).softmax(-1).to(v.dtype)
    return (pattern @ v.repeat_interleave(group, 1)).transpose(1, 2), None


def test_attention_in_one_call_is_audited_as_one_unit(source: Path) -> None:
    model = peer(source)
    model.set_attn_implementation("sdpa")
    result = audited(source, model)
    assert result.ok
    assert result.meaning == ()
    units = {op.unit for op in result.ops if op.kind == "attn.attention"}
    assert units == {f"blocks.{i}.attn, one unit: sdpa" for i in range(len(units))}
    transformers.AttentionInterface.register("half", _bf16_softmax)
    try:
        model.set_attn_implementation("half")
        faulty = audited(source, model)
    finally:
        transformers.AttentionInterface._global_mapping.pop("half")
    named = "blocks.0.attn, one unit: half"
    assert {op.kind for op in faulty.violated} == {"attn.attention"}
    assert faulty.violated[0].name == named
    assert faulty.divergence.first == faulty.violated[0].address
    assert f"first in {named}: " in render(faulty)
    assert faulty.reproducer is not None
    assert faulty.reproducer.violates


def test_a_broken_tie_is_another_meaning(tmp_path: Path) -> None:
    source = write_speaking_llama(tmp_path, tie_word_embeddings=True)
    model = peer(source)
    head = model.lm_head.weight.detach()
    model.lm_head.weight = torch.nn.Parameter(head.roll(1, 0))
    result = audited(source, model)
    assert [d.name for d in result.meaning] == ["unembedding"]
    assert not result.ok


def test_a_bitlens_model_in_memory(source: Path) -> None:
    result = audited(source, bitlens.load(source, dtype="bf16"))
    assert result.ok
    assert result.setting.b == "a bitlens model under bf16"


def test_what_cannot_be_watched_is_refused_by_name(source: Path) -> None:
    model = peer(source)
    model.model.layers[1].mlp.compile()
    with pytest.raises(TypeError, match=r"model\.layers\.1\.mlp is compiled"):
        audited(source, model)
    model = peer(source)
    model.model.norm.register_forward_hook(lambda m, x, y: y + 1e-3 * torch.rand(()))
    with pytest.raises(UnobservedError, match="LlamaForCausalLM in memory is not deterministic"):
        audited(source, model)
    small = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, attn_implementation="eager",
    )  # fmt: skip
    with pytest.raises(ValueError, match="a vocabulary of 97 against 256"):
        audited(source, transformers.LlamaForCausalLM(small).eval())
