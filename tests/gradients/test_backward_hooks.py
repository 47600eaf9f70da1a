"""Backward hooks and `incl_bwd`: what they see, what an edit does, what raises. Both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitlens.model import HookedTransformer
from bitlens.model.cache.kv_cache import KVCache
from bitlens.model.gradients import GradientOps
from bitlens.model.hooks.registry import has_key_axis, is_default
from bitlens.model.ops.native import NativeOps
from support.gradient_cases import gradient_names, gradients, metric
from support.random_models import CONFIGS, random_model

BACKENDS = ("native", "torch")
TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
RESID, LATE = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models() -> Callable[..., HookedTransformer]:
    made: dict[tuple[str, str], HookedTransformer] = {}

    def get(architecture: str, backend: str = "native") -> HookedTransformer:
        key = (architecture, backend)
        return made.setdefault(key, made.get(key) or random_model(architecture, backend=backend))

    return get


def keep(found: dict[str, torch.Tensor]) -> Any:
    def fn(grad: torch.Tensor, hook: Any) -> None:
        found[hook.name] = grad.clone()

    return fn


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_hook_fires_with_the_shape_of_its_activation(
    models: Any, architecture: str, backend: str
) -> None:
    model = models(architecture, backend)
    found: dict[str, torch.Tensor] = {}
    names = gradient_names(model)
    _, activations = model.run_with_cache(TOKENS, names, attention_mask=MASK)
    logits = model.run_with_hooks(
        TOKENS, bwd_hooks=[(name, keep(found)) for name in names], attention_mask=MASK
    )
    metric(logits).backward()
    assert found.keys() == set(names)
    for name, grad in found.items():
        assert grad.shape == activations[name].shape
        assert grad.dtype == activations[name].dtype
        assert torch.isfinite(grad).all()
        assert grad.any()
        padding = grad[0, :, :2] if has_key_axis(name) else grad[0, :2]
        assert not padding.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["qwen2", "gemma3"])
def test_per_head_inputs_split_the_gradient(models: Any, architecture: str, backend: str) -> None:
    """Their gradients add up to that of the stream, up to the order of the sum."""
    model = models(architecture, backend)
    whole = gradients(model, TOKENS, [RESID, "blocks.1.hook_resid_mid"])
    into_attention = whole[RESID] - whole["blocks.1.hook_resid_mid"]
    attn_in = "blocks.1.hook_attn_in"
    found = gradients(model, TOKENS, [attn_in])[attn_in].sum(2)
    assert torch.allclose(found, into_attention, rtol=1e-4, atol=1e-5)
    names = [f"blocks.1.hook_{part}_input" for part in "qkv"]
    parts = gradients(model, TOKENS, names)
    total = sum(x.sum(2) for x in parts.values())
    assert isinstance(total, torch.Tensor)
    assert torch.allclose(total, into_attention, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_edit_takes_effect_there_and_only_before(models: Any, backend: str) -> None:
    model = models("llama", backend)
    names = ["hook_embed", RESID, "blocks.1.hook_mlp_out", LATE]
    plain = gradients(model, TOKENS, names)

    def doubled(grad: torch.Tensor, hook: Any) -> torch.Tensor:
        return grad * 2

    def in_place(grad: torch.Tensor, hook: Any) -> None:
        grad *= 2

    for double in (doubled, in_place):
        with model.hooks(bwd_hooks=[(LATE, double)]):
            edited = gradients(model, TOKENS, names)
        # A power of two moves no bit but the exponent's.
        assert torch.equal(edited[LATE], 2 * plain[LATE])
        assert torch.equal(edited["hook_embed"], 2 * plain["hook_embed"])
        with model.hooks(bwd_hooks=[(RESID, double)]):
            edited = gradients(model, TOKENS, names)
        assert torch.equal(edited[LATE], plain[LATE])
        assert torch.equal(edited["blocks.1.hook_mlp_out"], plain["blocks.1.hook_mlp_out"])
        assert torch.equal(edited["hook_embed"], 2 * plain["hook_embed"])


def test_hooks_run_in_order_each_with_what_the_one_before_left(models: Any) -> None:
    model, seen = models("llama"), []

    def note(grad: torch.Tensor, hook: Any) -> torch.Tensor:
        seen.append((hook.name, grad.clone()))
        return grad * 2

    logits = model.run_with_hooks(TOKENS, bwd_hooks=[(RESID, note), (RESID, note), (LATE, note)])
    assert not seen
    metric(logits).backward()
    assert [name for name, _ in seen] == [LATE, RESID, RESID]
    assert torch.equal(seen[2][1], 2 * seen[1][1])


def test_hooks_belong_to_the_pass_they_were_installed_for(models: Any) -> None:
    model, found = models("llama"), {}
    model.add_hook(RESID, keep(found), dir="bwd")
    logits = model(TOKENS)
    model.reset_hooks(direction="bwd")
    assert not model(TOKENS).requires_grad
    metric(logits).backward()
    assert found.keys() == {RESID}


def test_reset_hooks_by_direction(models: Any) -> None:
    model, calls = models("llama"), []
    model.add_hook(RESID, lambda tensor, hook: calls.append("fwd"))
    model.add_hook(RESID, lambda tensor, hook: calls.append("bwd"), dir="bwd")
    model.hook_dict[RESID].ctx["kept"] = 1
    model.reset_hooks(direction="fwd")
    assert model.hook_dict[RESID].ctx
    metric(model(TOKENS)).backward()
    assert calls == ["bwd"]
    model.reset_hooks()
    assert not model.hook_dict[RESID].ctx
    assert not model(TOKENS).requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
def test_hooks_that_stay_are_installed_together_or_not_at_all(models: Any, backend: str) -> None:
    model, calls = models("llama", backend), []
    hooks = [(RESID, lambda tensor, hook: calls.append(hook.name))]
    with pytest.raises(KeyError):
        model.run_with_hooks(TOKENS, hooks, [("hook_embeds", keep({}))], reset_hooks_end=False)
    model(TOKENS)
    assert not calls
    model.run_with_hooks(TOKENS, hooks, reset_hooks_end=False)
    model(TOKENS)
    model.reset_hooks()
    assert calls == [RESID, RESID]


@pytest.mark.parametrize("backend", BACKENDS)
def test_incl_bwd_keeps_what_hooks_see(models: Any, backend: str) -> None:
    model = models("gemma3", backend)
    found: dict[str, torch.Tensor] = {}
    names = [name for name in model.hook_names if is_default(name)]
    with model.hooks(bwd_hooks=[(name, keep(found)) for name in names]):
        loss, cache = model.run_with_cache(
            TOKENS, return_type="loss", attention_mask=MASK, incl_bwd=True
        )
    assert set(cache) == {*names, *(f"{name}_grad" for name in names)}
    for name in names:
        assert torch.equal(cache[f"{name}_grad"], found[name])
    assert torch.equal(cache["resid_pre_grad", 1], found[RESID])
    assert torch.equal(cache["pattern_grad", 0], found["blocks.0.attn.hook_pattern"])
    with torch.no_grad():
        assert torch.equal(model(TOKENS, MASK, return_type="loss"), loss)
    for name in (RESID, "blocks.1.attn.hook_pattern"):
        _, sliced = model.run_with_cache(
            TOKENS, name, [0, 5], return_type="loss", attention_mask=MASK, incl_bwd=True
        )
        axis = 2 if has_key_axis(name) else 1
        want = found[name].index_select(axis, torch.tensor([0, 5]))
        assert torch.equal(sliced[f"{name}_grad"], want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hooks_own_tensor_gets_its_gradient(models: Any, backend: str) -> None:
    """A steering vector that is learned, and an activation made a leaf."""
    model, found = models("qwen2", backend), {}
    vector = torch.zeros(42, requires_grad=True)
    hooks = [(RESID, lambda x, hook: x + vector)]
    logits = model.run_with_hooks(TOKENS, hooks, [(RESID, keep(found))], attention_mask=MASK)
    metric(logits).backward()
    assert vector.grad is not None
    total = found[RESID].double().sum((0, 1))
    assert torch.allclose(vector.grad.double(), total, rtol=1e-5, atol=1e-5)

    leaves = {}

    def cut(x: torch.Tensor, hook: Any) -> torch.Tensor:
        leaves[hook.name] = x.detach().requires_grad_()
        return leaves[hook.name]

    scores = "blocks.1.attn.hook_attn_scores"
    for name in (RESID, scores, "blocks.2.attn.hook_pattern"):
        logits = model.run_with_hooks(TOKENS, [(name, cut)], attention_mask=MASK)
        metric(logits).backward()
        found, want = leaves[name].grad, gradients(model, TOKENS, [name], MASK)[name]
        assert found is not None
        if backend == "torch":  # which multiplies masked values, too, by a pattern of 0
            found = torch.where(want != 0, found, want)
        assert torch.equal(found, want)


def test_no_graph_is_made_where_none_is_asked_for(models: Any) -> None:
    model = models("llama")
    said = model.generate(TOKENS[:1], max_new_tokens=2).tokens
    assert not model(TOKENS).requires_grad
    reading = [(name, lambda x, hook: None) for name in model.hook_names]
    assert not model.run_with_hooks(TOKENS, reading).requires_grad
    model.add_hook(RESID, lambda grad, hook: None, dir="bwd")
    try:
        with torch.no_grad():
            assert not model(TOKENS).requires_grad
        with torch.inference_mode():
            model(TOKENS)
        assert torch.equal(model.generate(TOKENS[:1], max_new_tokens=2).tokens, said)
        assert model(TOKENS).requires_grad
    finally:
        model.reset_hooks()


def test_what_has_no_gradient_raises(models: Any) -> None:
    model = models("llama")

    def run(**options: Any) -> Any:
        return model.run_with_cache(TOKENS, incl_bwd=True, **options)

    def nothing(grad: torch.Tensor, hook: Any) -> None:
        return None

    for options in ({}, {"return_type": "loss", "loss_per_token": True}, {"return_type": "both"}):
        with pytest.raises(ValueError, match='return_type="loss"'):
            run(**options)
    with pytest.raises(ValueError, match="stop_at_layer has no loss"):
        run(return_type="loss", stop_at_layer=2)
    with pytest.raises(ValueError, match="none of the names"):
        run(names_filter="hook_tokens", return_type="loss")
    with pytest.raises(ValueError, match="integers"):
        model.run_with_hooks(TOKENS, bwd_hooks=[("hook_tokens", nothing)])
    with pytest.raises(KeyError, match="hook_resid_pre"):
        model.run_with_hooks(TOKENS, bwd_hooks=[("blocks.0.hook_resid_per", nothing)])
    with pytest.raises(ValueError, match="direction 'back'"):
        model.add_hook(RESID, nothing, dir="back")
    with torch.no_grad():
        with pytest.raises(ValueError, match="switched off"):
            run(return_type="loss")
        with pytest.raises(ValueError, match="switched off"):
            model.run_with_hooks(TOKENS, bwd_hooks=[(RESID, nothing)])
    with pytest.raises(ValueError, match=r'packed weights.*backend="torch"'):
        model.requires_grad_()
    model.requires_grad_(False)
    assert not list(model.parameters())
    both = [("blocks.0.ln1.hook_scale", nothing), ("blocks.0.hook_q_input", nothing)]
    with pytest.raises(ValueError, match="pass it by"):
        model.run_with_hooks(TOKENS, bwd_hooks=both)
    leaf = torch.zeros(42, requires_grad=True)
    logits = model.run_with_hooks(TOKENS, [(RESID, lambda x, hook: x + leaf)])
    with pytest.raises(RuntimeError, match=r'create_graph.*backend="torch"'):
        torch.autograd.grad(metric(logits), leaf, create_graph=True)
    wrong = [(RESID, lambda grad, hook: grad[:1])]
    with pytest.raises(ValueError, match="hook_resid_pre returned"):
        metric(model.run_with_hooks(TOKENS, bwd_hooks=wrong)).backward()


def test_copies_have_the_gradient_that_passes_there(models: Any) -> None:
    model = models("llama")
    names = ["attn.hook_result", "hook_attn_out", "hook_mlp_in", "hook_mlp_out"]
    found = gradients(model, TOKENS, [f"blocks.1.{name}" for name in names])
    result, attn_out, mlp_in, mlp_out = (found[f"blocks.1.{name}"] for name in names)
    assert torch.equal(result, attn_out[:, :, None].expand_as(result))
    late = gradients(model, TOKENS, ["blocks.1.hook_resid_mid", "blocks.1.hook_resid_post"])
    skip, total = late["blocks.1.hook_resid_post"], late["blocks.1.hook_resid_mid"]
    assert torch.equal(skip, mlp_out)
    assert torch.equal(mlp_in + skip, total)


def test_every_operation_has_a_derivative() -> None:
    """One that `GradientOps` inherits would cut the graph without a word."""
    without = {"computes", "adopt", "weight", "storage", "vector", "embed"}
    operations = {name for name in vars(NativeOps) if not name.startswith("_")}
    operations -= without | set(vars(NativeOps)["__annotations__"]) | {"device", "taps"}
    assert operations <= vars(GradientOps).keys()


def test_a_cached_prefix_raises(models: Any) -> None:
    model = models("llama")

    def cached() -> KVCache:
        cache = model.new_cache(2)
        model(TOKENS, kv_cache=cache)
        return cache

    cache = model.new_cache(2)
    found: dict[str, torch.Tensor] = {}
    logits = model.run_with_hooks(TOKENS, bwd_hooks=[(RESID, keep(found))], kv_cache=cache)
    metric(logits).backward()
    assert torch.equal(found[RESID], gradients(model, TOKENS, [RESID])[RESID])
    with pytest.raises(ValueError, match="kv_cache: gradients do not reach the 7 tokens"):
        model.run_with_hooks(TOKENS, bwd_hooks=[(RESID, keep(found))], kv_cache=cached())
    vector = torch.zeros(42, requires_grad=True)
    with pytest.raises(ValueError, match="kv_cache: gradients do not reach"):
        model.run_with_hooks(TOKENS, [(RESID, lambda x, hook: x + vector)], kv_cache=cached())
    # After the last attention there is nothing that the cache hides.
    last = [("blocks.2.hook_resid_post", lambda x, hook: x + vector)]
    metric(model.run_with_hooks(TOKENS, last, kv_cache=cached())).backward()
    assert vector.grad is not None


def test_hf_bf16_has_no_native_gradients() -> None:
    model = random_model("llama", dtype="hf_bf16")
    with pytest.raises(ValueError, match=r'hf_bf16.*backend="torch"'):
        model.run_with_cache(torch.arange(5), return_type="loss", incl_bwd=True)
