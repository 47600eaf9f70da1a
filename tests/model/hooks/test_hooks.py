"""Hook points: names, reading, editing. Both backends share the code; both are driven here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitlens.model import HookedTransformer
from bitlens.model.hooks.registry import HookPoint, is_default
from support.random_models import CONFIGS, random_model

TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
BACKENDS = ("native", "torch")
MODES = {
    "grad": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """The tensors are tiny: threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models() -> Callable[..., HookedTransformer]:
    made: dict[tuple[str, str, str], HookedTransformer] = {}

    def get(architecture: str, backend: str = "native", dtype: str = "fp32") -> HookedTransformer:
        key = (architecture, backend, dtype)
        if key not in made:
            made[key] = random_model(architecture, backend=backend, dtype=dtype)
        return made[key]

    return get


def same(x: torch.Tensor, y: torch.Tensor) -> bool:
    x, y = (t.detach().clone(memory_format=torch.contiguous_format) for t in (x, y))
    kind = _BITS[x.element_size()]
    return x.dtype == y.dtype and torch.equal(x.view(kind), y.view(kind))


def one_of_each(model: HookedTransformer) -> list[str]:
    """Every kind of name once."""
    return [name for name in model.hook_names if not name.startswith(("blocks.0.", "blocks.2."))]


def returned(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
    return tensor


def copied(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
    return tensor.clone()


def read(tensor: torch.Tensor, hook: HookPoint) -> None:
    return None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("mode", MODES)
def test_identity_moves_no_bit(models: Any, backend: str, architecture: str, mode: str) -> None:
    model = models(architecture, backend)
    with MODES[mode]():
        plain = model(TOKENS, MASK)
        for identity in (returned, copied, read):
            seen: list[str] = []

            def fn(tensor: torch.Tensor, hook: HookPoint, identity: Any = identity) -> Any:
                seen.append(hook.name)  # noqa: B023
                return identity(tensor, hook)

            for names in (model.hook_names, model.hook_names[::5]):
                seen.clear()
                hooked = model.run_with_hooks(TOKENS, [(n, fn) for n in names], attention_mask=MASK)
                assert seen == names
                assert same(hooked, plain)
        for name in one_of_each(model):
            assert same(model.run_with_hooks(TOKENS, [(name, copied)], attention_mask=MASK), plain)


def moved(x: torch.Tensor) -> torch.Tensor:
    """Another tensor of the same kind: the last real row of the second sequence is changed."""
    y = x.clone()
    if x.dtype == torch.int64:
        y[1, -1] = 0
    elif x.ndim == 4 and x.shape[1] == 6 and x.shape[-1] == x.shape[-2]:
        y[1, 1, -1, 4] = 0.5
    else:
        y[1, -1] = y[1, -1] * 1.5 + 0.25
    return y


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["mistral", "gemma3"])
def test_every_edit_takes_effect_in_place_or_returned(
    models: Any, backend: str, architecture: str
) -> None:
    model = models(architecture, backend)
    plain = model(TOKENS, MASK)

    def in_place(tensor: torch.Tensor, hook: HookPoint) -> None:
        with torch.no_grad():
            tensor.copy_(moved(tensor))

    def through_numpy(tensor: torch.Tensor, hook: HookPoint) -> None:
        tensor.detach().numpy()[:] = moved(tensor).detach().numpy()

    def returns(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
        return moved(tensor)

    for name in one_of_each(model):
        results = [
            model.run_with_hooks(TOKENS, [(name, fn)], attention_mask=MASK)
            for fn in (in_place, through_numpy, returns)
        ]
        with torch.inference_mode():
            results.append(model.run_with_hooks(TOKENS, [(name, in_place)], attention_mask=MASK))
        assert all(same(result, results[0]) for result in results), name
        assert not same(results[0][1, -1], plain[1, -1]), name
        # The other sequence and the earlier rows see nothing of it.
        if backend == "native":
            assert same(results[0][0], plain[0]), name
            assert same(results[0][1, :-1], plain[1, :-1]), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_editing_a_value_into_what_it_was_elsewhere(models: Any, backend: str, dtype: str) -> None:
    """Patching every activation of one name from another run carries that run's logits over."""
    model = models("mistral", backend, dtype)
    other = TOKENS.flip(0)
    expected = model(other)
    for name in ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_post", "hook_embed"):
        _, cache = model.run_with_cache(other, name)

        def patch(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
            return cache[hook.name]  # noqa: B023

        assert same(model.run_with_hooks(TOKENS, [(name, patch)]), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_documented_paths_are_the_same_function(models: Any, backend: str) -> None:
    """Replacing scores, scales or normalized by another run's gives that run's z or norm."""
    model = models("mistral", backend)
    other = TOKENS.flip(0)
    prefix = "blocks.1."
    chains = (
        (["attn.hook_attn_scores", "attn.hook_v"], "attn.hook_z"),
        (["attn.hook_pattern", "attn.hook_v"], "attn.hook_z"),
        (["ln2.hook_normalized"], "mlp.hook_in"),
        (["hook_mlp_in", "ln2.hook_scale"], "mlp.hook_in"),
        (["mlp.hook_pre", "mlp.hook_pre_linear"], "mlp.hook_post"),
        (["attn.hook_rot_q", "attn.hook_rot_k"], "attn.hook_pattern"),
    )
    _, there = model.run_with_cache(other, lambda name: name.startswith(prefix))

    def patch(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
        return there[hook.name]

    for sources, target in chains:
        seen = {}

        def keep(tensor: torch.Tensor, hook: HookPoint, seen: Any = seen) -> None:
            seen[hook.name] = tensor.clone()

        hooks = [(prefix + source, patch) for source in sources]
        model.run_with_hooks(TOKENS, [*hooks, (prefix + target, keep)])
        assert same(seen[prefix + target], there[prefix + target]), target


@pytest.mark.parametrize("backend", BACKENDS)
def test_result_sums_to_attn_out(models: Any, backend: str) -> None:
    model = models("llama", backend)
    _, cache = model.run_with_cache(TOKENS, ["blocks.0.attn.hook_result", "blocks.0.hook_attn_out"])
    total = cache["blocks.0.attn.hook_result"].sum(2)
    torch.testing.assert_close(total, cache["blocks.0.hook_attn_out"], atol=1e-5, rtol=0)

    def ablate(tensor: torch.Tensor, hook: HookPoint) -> None:
        tensor[:, :, 1] = 0

    def ablate_z(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
        return tensor * torch.tensor([1.0, 0.0, 1.0])[:, None]

    with torch.no_grad():
        by_result = model.run_with_hooks(TOKENS, [("blocks.0.attn.hook_result", ablate)])
        by_z = model.run_with_hooks(TOKENS, [("blocks.0.attn.hook_z", ablate_z)])
    torch.testing.assert_close(by_result, by_z, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_head_inputs_reach_their_head_only(models: Any, backend: str) -> None:
    model = models("mistral", backend)  # 6 query heads on 3 key/value heads

    def edit(head: int) -> Callable[..., torch.Tensor]:
        def fn(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
            out = tensor.clone()
            out[1, 3, head] += 1
            return out

        return fn

    watched = [f"blocks.1.attn.hook_{name}" for name in "qkv"]
    _, plain = model.run_with_cache(TOKENS, watched)
    for name, head, expected in (
        ("hook_q_input", 4, {"q": [4]}),
        ("hook_k_input", 2, {"k": [2]}),
        ("hook_v_input", 0, {"v": [0]}),
        ("hook_attn_in", 2, {"q": [2], "k": [1], "v": [1]}),
        ("hook_attn_in", 3, {"q": [3]}),
    ):
        with model.hooks([(f"blocks.1.{name}", edit(head))]):
            _, cache = model.run_with_cache(TOKENS, watched)
        for kind in "qkv":
            changed = cache[f"blocks.1.attn.hook_{kind}"] != plain[f"blocks.1.attn.hook_{kind}"]
            rows = sorted({(b, p, h) for b, p, h, _ in changed.nonzero().tolist()})
            assert rows == [(1, 3, h) for h in expected.get(kind, [])], (name, kind)


def test_an_edit_of_ln1_and_of_head_inputs_together_is_refused(models: Any) -> None:
    model = models("llama")

    def double(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
        return tensor * 2

    inputs = ("blocks.0.hook_q_input", double)
    with pytest.raises(ValueError, match=r"blocks\.0\.ln1"):
        model.run_with_hooks(TOKENS, [inputs, ("blocks.0.ln1.hook_normalized", double)])
    reading = model.run_with_hooks(TOKENS, [inputs, ("blocks.0.ln1.hook_normalized", read)])
    assert same(reading, model.run_with_hooks(TOKENS, [inputs]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["hook_attn_scores", "hook_pattern"])
def test_masked_keys_cannot_be_edited(models: Any, backend: str, name: str) -> None:
    model = models("mistral", backend)  # window 5

    def edit(row: int, key: int) -> Callable[..., None]:
        def fn(tensor: torch.Tensor, hook: HookPoint) -> None:
            tensor[0, 0, row, key] = 0.5

        return fn

    point = f"blocks.0.attn.{name}"
    for row, key in ((3, 4), (3, 0)):  # a later key; padding
        with pytest.raises(ValueError, match="masked keys"), torch.no_grad():
            model.run_with_hooks(TOKENS, [(point, edit(row, key))], attention_mask=MASK)
    with pytest.raises(ValueError, match="masked keys"), torch.no_grad():
        model.run_with_hooks(TOKENS, [(point, edit(6, 0))])  # beyond the window
    with torch.no_grad():  # a padding row is ignored
        hooked = model.run_with_hooks(TOKENS, [(point, edit(0, 0))], attention_mask=MASK)
    assert same(hooked, model(TOKENS, MASK))


def test_hooks_on_one_name_run_in_order_and_see_each_other(models: Any) -> None:
    model = models("llama")
    seen = []

    def plus(amount: float) -> Callable[..., torch.Tensor]:
        def fn(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
            seen.append(float(tensor[0, 0, 0]))
            return torch.full_like(tensor, amount)

        return fn

    name = "blocks.1.hook_mlp_out"
    with model.hooks([(name, plus(1.0))]), model.hooks([(name, plus(2.0))]):
        _, cache = model.run_with_cache(TOKENS, name)
    assert seen[1] == 1.0
    assert (cache[name] == 2).all()
    assert same(model(TOKENS), model.run_with_hooks(TOKENS, []))


def test_a_buffer_the_hook_reuses_is_not_shared(models: Any) -> None:
    """Every block's hook returns one buffer; a model that kept it would see later writes."""
    model = models("llama")
    buffer = torch.empty(2, 7, 42)

    def reuse(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
        return buffer.copy_(tensor * 1.25)

    def fresh(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
        return tensor * 1.25

    names = [f"blocks.{i}.{n}" for i in range(3) for n in ("hook_resid_mid", "hook_mlp_out")]
    found = model.run_with_hooks(TOKENS, [(name, reuse) for name in names])
    assert same(found, model.run_with_hooks(TOKENS, [(name, fresh) for name in names]))


def test_hook_points_and_filters(models: Any) -> None:
    model = models("llama")
    seen = []

    def fn(tensor: torch.Tensor, hook: HookPoint) -> None:
        seen.append((hook.layer(), hook.name))
        hook.ctx["calls"] = 1 + int(str(hook.ctx.get("calls", 0)))

    model.add_hook(lambda name: name.endswith("hook_resid_mid"), fn)
    model(TOKENS)
    assert seen == [(i, f"blocks.{i}.hook_resid_mid") for i in range(3)]
    assert model.hook_dict["blocks.0.hook_resid_mid"].ctx == {"calls": 1}
    model.reset_hooks()
    model(TOKENS)
    assert len(seen) == 3
    assert model.hook_dict["blocks.0.hook_resid_mid"].ctx == {}
    with pytest.raises(ValueError, match="belongs to no layer"):
        model.hook_dict["hook_embed"].layer()


def test_hooks_are_removed_after_an_error(models: Any) -> None:
    model = models("llama")

    def fail(tensor: torch.Tensor, hook: HookPoint) -> None:
        raise RuntimeError("mine")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="mine"):
            model.run_with_hooks(TOKENS, [("hook_embed", read), ("hook_embed", fail)])
    model(TOKENS)
    with (
        pytest.raises(KeyError, match="hook_resid_mid"),
        model.hooks([("hook_embed", fail), ("blocks.0.hook_resid_middle", fail)]),
    ):
        pass
    model(TOKENS)


def test_unknown_names_and_wrong_results_are_named(models: Any) -> None:
    model = models("llama")
    for call in (
        lambda: model.run_with_cache(TOKENS, "blocks.0.attn.hook_patern"),
        lambda: model.run_with_hooks(TOKENS, [("blocks.0.attn.hook_patern", read)]),
        lambda: model.add_hook("blocks.0.attn.hook_patern", read),
    ):
        with pytest.raises(KeyError, match=r"blocks\.0\.attn\.hook_pattern"):
            call()
    with pytest.raises(ValueError, match="matches no hook"):
        model.add_hook(lambda name: False, read)
    for result, error in (
        (torch.zeros(1), ValueError),
        (torch.zeros(2, 7, 42).double(), ValueError),
        (3, TypeError),
    ):
        with pytest.raises(error, match="hook_embed returned"):
            model.run_with_hooks(TOKENS, [("hook_embed", lambda x, hook, r=result: r)])
    with pytest.raises(ValueError, match="would never fire"):
        model.run_with_hooks(TOKENS, [("blocks.2.hook_resid_pre", read)], stop_at_layer=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_captured_is_what_a_hook_sees(models: Any, backend: str, architecture: str) -> None:
    model = models(architecture, backend)
    seen = {}

    def keep(tensor: torch.Tensor, hook: HookPoint) -> None:
        seen[hook.name] = tensor.clone()

    with model.hooks([(name, keep) for name in model.hook_names]):
        hooked = model(TOKENS, MASK)
    logits, cache = model.run_with_cache(TOKENS, lambda name: True, attention_mask=MASK)
    assert same(logits, hooked)
    assert same(logits, model(TOKENS, MASK))
    assert list(cache) == model.hook_names
    for name, x in cache.items():
        assert same(x, seen[name]), name
        assert not x.requires_grad
        if "pattern" not in name and "scores" not in name:
            assert not x[0, :2].any(), name
    columns = [5, 0, 3]
    _, sliced = model.run_with_cache(TOKENS, lambda name: True, columns, attention_mask=MASK)
    for name, x in cache.items():
        axis = 2 if name.endswith(("pattern", "scores")) else 1
        if backend == "native":
            assert same(sliced[name], x.index_select(axis, torch.tensor(columns))), name


@pytest.mark.parametrize(
    ("pos_slice", "columns"),
    [(3, [3]), (-1, [6]), (slice(1, 4), [1, 2, 3]), ((2,), [0, 1]), ((1, 6, 2), [1, 3, 5])],
)
def test_position_slices(models: Any, pos_slice: Any, columns: list[int]) -> None:
    model = models("llama")
    names = ["blocks.0.attn.hook_pattern", "blocks.0.attn.hook_q"]
    _, whole = model.run_with_cache(TOKENS, names)
    _, cache = model.run_with_cache(TOKENS, names, pos_slice)
    assert same(cache[names[0]], whole[names[0]][:, :, columns])
    assert same(cache[names[1]], whole[names[1]][:, columns])
    with pytest.raises(IndexError, match="pos_slice"):
        model.run_with_cache(TOKENS, names, 7)


def test_default_names_and_stop_at_layer(models: Any) -> None:
    model = models("llama")
    _, cache = model.run_with_cache(TOKENS)
    assert list(cache) == [name for name in model.hook_names if is_default(name)]
    resid, cache = model.run_with_cache(TOKENS, stop_at_layer=1)
    assert list(cache)[-1] == "blocks.0.hook_resid_post"
    assert same(resid, cache["blocks.0.hook_resid_post"])
    assert same(model(TOKENS, stop_at_layer=-1), model(TOKENS, stop_at_layer=2))
    with pytest.raises(ValueError, match="stop_at_layer"):
        model(TOKENS, stop_at_layer=4)
    with pytest.raises(KeyError, match="hook_resid_post"):
        cache["blocks.0.hook_resid_pst"]
    assert same(cache.to("cpu")["hook_embed"], cache["hook_embed"])
