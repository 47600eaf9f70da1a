"""transformers models whose attention is one call, or one module nobody sees into: one unit.

B batch, P positions, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import bitlens
import pytest
import torch
import torch.nn.functional as F
import transformers
from bitlens.model.interop.transformers_addresses import TransformersAddresses
from bitlens.model.weights.checkpoint import CheckpointError
from bitlens.precision.addresses import UnobservedError
from bitlens.precision.divergence import first_divergence
from bitlens.precision.oracle import Verdict, check
from support.transformers_models import TOKENS, llama
from transformers import AttentionInterface
from transformers.models.llama import modeling_llama

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
POLICIES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
SHORT = TOKENS[:12]
Attention = Callable[..., tuple[torch.Tensor, None]]


def model_with(implementation: str, dtype: torch.dtype = torch.float32) -> Any:
    model = llama(dtype=dtype)
    model.set_attn_implementation(implementation)
    return model


@cache
def reference(dtype: torch.dtype = torch.float32) -> Any:
    """bitlens on the weights that `model_with` has."""
    return bitlens.load(llama(dtype=dtype), dtype=POLICIES[dtype])


@pytest.fixture
def registered() -> Iterator[Callable[[Attention], str]]:
    """Makes transformers know a function as "tested"."""

    def add(function: Attention) -> str:
        AttentionInterface.register("tested", function)
        return "tested"

    yield add
    AttentionInterface._global_mapping.pop("tested", None)


def judged(peer: TransformersAddresses, tokens: torch.Tensor) -> dict[str, Verdict]:
    """Every operation's verdict; each address fires once."""
    found: dict[str, Verdict] = {}
    fired: Counter[str] = Counter()

    def visit(address: str) -> Callable[..., Any]:
        site = peer.site(address)

        def look(original: Callable[..., Any], *args: Any) -> Any:
            result = original(*args)
            found[address] = check(site.view(result), site.bind(*args), site.contract)
            fired[address] += 1
            return site.restore(site.view(result).double(), result)

        return look

    plain = peer(tokens)
    with ExitStack() as stack:
        for address in peer.op_addresses:
            stack.enter_context(peer.override(address, visit(address)))
        assert torch.equal(peer(tokens), plain)
    assert fired == dict.fromkeys(peer.op_addresses, 1)
    return found


def broken(peer: TransformersAddresses, tokens: torch.Tensor = SHORT) -> set[str]:
    return {address for address, verdict in judged(peer, tokens).items() if not verdict.ok}


@DTYPES
def test_an_honest_sdpa_is_clean(dtype: torch.dtype) -> None:
    peer = TransformersAddresses(model_with("sdpa", dtype))
    assert peer.op_addresses == TransformersAddresses(llama()).op_addresses
    assert broken(peer) == broken(peer, SHORT[:1]) == set()
    site = peer.site("blocks.1.attn.attention")
    assert (site.contract.op, site.unit) == ("fused_attention", "blocks.1.attn, one unit: sdpa")
    assert peer.site("blocks.1.attn.o").unit is None


@DTYPES
@pytest.mark.parametrize("kind", ["qwen3", "gemma3"])
def test_windows_and_norms_are_the_unit_s_too(kind: str, dtype: torch.dtype) -> None:
    shape = {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 96, "sliding_window": 4,
    }  # fmt: skip
    config: Any = {
        "qwen3": lambda: transformers.Qwen3Config(**shape),
        "gemma3": lambda: transformers.Gemma3TextConfig(
            **shape, layer_types=["sliding_attention", "full_attention"]
        ),
    }[kind]()
    torch.manual_seed(0)
    factory: Any = transformers.AutoModelForCausalLM
    raw = factory.from_config(config, attn_implementation="sdpa", dtype=dtype).eval()
    with torch.no_grad():
        assert broken(TransformersAddresses(raw.requires_grad_(False))) == set()


def _scores(module: Any, q: Any, k: Any, scaling: float) -> torch.Tensor:
    return q.float() @ k.float().repeat_interleave(module.num_key_value_groups, 1).mT * scaling


def _mixed(module: Any, scores: Any, v: Any, dtype: torch.dtype) -> tuple[torch.Tensor, None]:
    """With a softmax in that dtype."""
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    pattern = scores.to(dtype).masked_fill(~seen, -torch.inf).softmax(-1).to(v.dtype)
    return (pattern @ v.repeat_interleave(module.num_key_value_groups, 1)).transpose(1, 2), None


def _sdpa(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any) -> Any:
    z = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    return z.transpose(1, 2), None


def _scale_ignored(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **x: Any) -> Any:
    return _sdpa(module, q, k, v, mask, 1.0, **x)


def _mask_off(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any) -> Any:
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(1)
    z = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling, enable_gqa=True)
    return z.transpose(1, 2), None


def _in_bf16(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any) -> Any:
    return _mixed(module, _scores(module, q, k, scaling), v, torch.bfloat16)


def _capped(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any) -> Any:
    scores = torch.tanh(_scores(module, q, k, scaling) / 0.5) * 0.5
    return _mixed(module, scores, v, torch.float32)


FAULTS = {
    "scale": _scale_ignored,
    "mask": _mask_off,
    "softmax in bf16": _in_bf16,
    "cap": _capped,
}


@DTYPES
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_unit_is_named_and_nothing_else(
    fault: str, dtype: torch.dtype, registered: Any
) -> None:
    """The unit is fed a's values, so the second one is not blamed for the first."""

    def second_only(module: Any, *args: Any, **kwargs: Any) -> Any:
        function = FAULTS[fault] if module.layer_idx == 1 else _sdpa
        return function(module, *args, **kwargs)

    peer = TransformersAddresses(model_with(registered(second_only), dtype))
    found = first_divergence(reference(dtype), peer, SHORT, "lockstep", judge="contract")
    assert found.created == ("blocks.1.attn.attention",)
    assert "created by blocks.1.attn, one unit: tested (by contract)" in str(found)
    assert found.row(found.created[0]).unit == "blocks.1.attn, one unit: tested"


@DTYPES
def test_an_honest_unit_creates_nothing(dtype: torch.dtype) -> None:
    """bitlens loads a model with sdpa, and judges its attention as it does."""
    raw = model_with("sdpa", dtype)
    ours = bitlens.load(raw, dtype=POLICIES[dtype])
    found = first_divergence(ours, TransformersAddresses(raw), SHORT, "lockstep", judge="contract")
    assert (found.created, found.meaning) == ((), ())


def test_a_model_whose_sdpa_is_not_its_config_s_is_not_loaded(registered: Any) -> None:
    with pytest.raises(CheckpointError, match=r"attention scale 1 against 0\.353553"):
        bitlens.load(model_with(registered(_scale_ignored)))
    with pytest.raises(CheckpointError, match=r"its blocks\.0\.attn\.attention computes something"):
        bitlens.load(model_with(registered(_in_bf16)))


def test_what_sdpa_is_given_is_compared_as_meaning(registered: Any) -> None:
    raw, ours = model_with("sdpa"), reference()
    for function, said in (
        (_sdpa, []),
        (
            _scale_ignored,
            ["attention scale 1 against 0.353553 at blocks.0.attn.attention and 1 more"],
        ),
        (_mask_off, ["attention mask one where query 0 sees key 1 against causal"]),
    ):
        raw.set_attn_implementation(registered(function))
        found = first_divergence(ours, TransformersAddresses(raw), SHORT, "lockstep")
        assert len(found.meaning) == len(said), function
        for difference, text in zip(found.meaning, said, strict=True):
            assert str(difference).startswith(text)


def test_a_fault_before_the_unit_is_not_the_unit_s() -> None:
    raw, ours = model_with("sdpa"), reference()
    raw.model.layers[0].self_attn.k_proj.register_forward_hook(lambda m, x, y: 1.5 * y)
    found = first_divergence(ours, TransformersAddresses(raw), SHORT, "lockstep", judge="contract")
    assert found.created == ("blocks.0.attn.k",)


@torch.library.custom_op("bitlens_tests::attend", mutates_args=())
def _operator(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """[B, P, H, h], as kernels of flash attention take them."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    z = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    return z.transpose(1, 2).contiguous()


@pytest.mark.parametrize(("factor", "named"), [(1.0, set()), (1.1, {"blocks.0", "blocks.1"})])
def test_an_operator_of_torch_is_a_unit(factor: float, named: set[str], registered: Any) -> None:
    def flash(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any) -> Any:
        heads_last = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        return _operator(*heads_last, scaling * factor), None

    peer = TransformersAddresses(model_with(registered(flash)))
    assert peer.op_addresses == TransformersAddresses(llama()).op_addresses
    assert broken(peer) == {f"{block}.attn.attention" for block in named}


@DTYPES
@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (1.5, False)])
def test_a_kernel_that_torch_does_not_know_is_a_unit_with_rope(
    factor: float, right: bool, dtype: torch.dtype, registered: Any
) -> None:
    def outside(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **x: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return _sdpa(module, q, k, v, mask, factor * scaling, **x)

    peer = TransformersAddresses(model_with(registered(outside), dtype))
    assert not any("rope" in address for address in peer.op_addresses)
    assert peer.site("blocks.0.attn.attention").contract.op == "rotated_attention"
    named = {f"blocks.{i}.attn.attention" for i in (0, 1)}
    assert broken(peer) == (set() if right else named)


def _whole(factor: float) -> Callable[..., Any]:
    """One product for queries, keys and values, as kernels are written for speed."""

    def forward(self: Any, hidden_states: Any, position_embeddings: Any, **_: Any) -> Any:
        linears = (self.q_proj, self.k_proj, self.v_proj)
        qkv = F.linear(hidden_states, torch.cat([linear.weight for linear in linears]))
        q, k, v = qkv.split([len(linear.weight) for linear in linears], -1)
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        q, k = modeling_llama.apply_rotary_pos_emb(q, k, *position_embeddings)
        z, _ = _sdpa(self, q, k, v, None, factor * self.scaling)
        return F.linear(z.flatten(2), self.o_proj.weight), None

    return forward


@DTYPES
@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (1.5, False)])
def test_a_module_that_is_one_is_judged_as_one(
    factor: float, right: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = reference(dtype)
    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", _whole(factor))
    peer = TransformersAddresses(llama(dtype=dtype))
    found = first_divergence(ours, peer, SHORT, "lockstep", judge="contract")
    assert found.created == (() if right else ("blocks.0.attn.o", "blocks.1.attn.o"))
    row = found.row("blocks.0.attn.o")
    assert (row.op, row.unit) == ("attention_block", "blocks.0.attn, one unit: LlamaAttention")
    inside = {"q", "k", "v", "rope_q", "rope_k", "attention"}
    assert {address.rpartition(".")[2] for address in found.only_a} == inside


def test_a_cap_that_the_call_ignores_is_named(registered: Any) -> None:
    """Transformers' Gemma 3 ignores one."""
    config = transformers.Gemma3TextConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=96,
        attn_logit_softcapping=0.5, layer_types=["full_attention"],
        query_pre_attn_scalar=1, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    factory: Any = transformers.AutoModelForCausalLM
    raw = factory.from_config(config, attn_implementation="sdpa").requires_grad_(False).eval()
    assert broken(TransformersAddresses(raw)) == {"blocks.0.attn.attention"}
    raw.set_attn_implementation(registered(_capped))
    assert broken(TransformersAddresses(raw)) == set()
    raw.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="attn_logit_softcapping"):
        TransformersAddresses(raw)


def test_attention_changed_after_it_was_looked_at_is_refused(registered: Any) -> None:
    raw = model_with("sdpa")
    peer = TransformersAddresses(raw)

    def outside(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return _sdpa(*args, **kwargs)

    raw.set_attn_implementation(registered(outside))
    with pytest.raises(UnobservedError, match=r"blocks\.0\.attn\.rope_q did not run"):
        first_divergence(reference(), peer, SHORT)
