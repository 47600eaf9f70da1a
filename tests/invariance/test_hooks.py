"""Reading moves no bit of anything, and neither does a hook that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitlens.audit.invariance.observation import observe
from bitlens.model.hooks.registry import HookPoint
from bitlens.model.runners.fused import TAPS
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import Views, assert_same, draw_tokens, fused_calls, fuses, padded

N_TOKENS = 9


def returned(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
    return tensor


def cloned(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
    return tensor.clone()


def in_place(tensor: torch.Tensor, hook: HookPoint) -> None:
    tensor.mul_(1)


def viewed(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
    """The same values in other memory order."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def read(tensor: torch.Tensor, hook: HookPoint) -> None:
    tensor.sum()


IDENTITIES = (returned, cloned, in_place, viewed, read)
MODES: dict[str, Callable[[], Any]] = {
    "grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def check_all_at_once(model: HookedTransformer, identity: Callable[..., Any], mode: str) -> None:
    """Ragged prompts, every name hooked; logits and every captured value must stay."""
    rows = [draw_tokens(model, n, seed=n) for n in (N_TOKENS, 4)]
    tokens_BP, mask_BP = padded(rows, "left")
    names = model.hook_names
    expected, cache = model.run_with_cache(tokens_BP, names, attention_mask=mask_BP)
    fired: list[str] = []

    def counting(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor | None:
        fired.append(hook.name)
        return identity(tensor, hook)  # type: ignore[no-any-return]

    with MODES[mode](), model.hooks([(name, counting) for name in names]):
        logits, found = model.run_with_cache(tokens_BP, names, attention_mask=mask_BP)
    assert_same({"logits": logits}, {"logits": expected})
    assert_same(dict(found), dict(cache))
    assert fired == names


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("identity", IDENTITIES)
def test_identity_on_all_names(
    model: HookedTransformer, identity: Callable[..., Any], mode: str
) -> None:
    check_all_at_once(model, identity, mode)


def check_alone(model: HookedTransformer, identity: Callable[..., Any], mode: str) -> None:
    """Each name by itself: the rest of the model stays fused."""
    tokens_BP = draw_tokens(model, 2, N_TOKENS)
    expected = {"logits": model(tokens_BP)}
    for name in model.hook_names:
        with MODES[mode](), fused_calls() as calls:
            logits = model.run_with_hooks(tokens_BP, fwd_hooks=[(name, identity)])
        assert_same({"logits": logits}, expected)
        assert bool(calls) == fuses(model), "hooking one name ran every block unfused"


def test_identity_on_each_name_alone(model: HookedTransformer) -> None:
    check_alone(model, cloned, "no_grad")
    check_alone(model, in_place, "inference")


@pytest.mark.nightly
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("identity", IDENTITIES)
def test_identity_on_each_name_alone_in_each_mode(
    model: HookedTransformer, identity: Callable[..., Any], mode: str
) -> None:
    check_alone(model, identity, mode)


def test_reading_nothing_one_and_all(model: HookedTransformer) -> None:
    tokens_BP = draw_tokens(model, 2, N_TOKENS)
    everything = observe(model, tokens_BP, model.hook_names)
    for name in model.hook_names:
        for row, expected in zip(observe(model, tokens_BP, [name]), everything, strict=True):
            assert_same(row, {key: expected[key] for key in (name, "logits")})
        _, cache = model.run_with_cache(tokens_BP, name)
        assert_same({name: cache[name][1]}, {name: everything[1][name]})


def test_what_is_asked_for_decides_what_is_fused(model: HookedTransformer) -> None:
    tokens_BP, n = draw_tokens(model, 1, N_TOKENS), model.config.n_layers
    residuals = [f"blocks.{i}.hook_resid_post" for i in range(n)]
    asked = {
        (): [(0, n)],
        tuple(residuals): [(i, i + 1) for i in range(n)],
        ("blocks.1.mlp.hook_post",): [(0, 1), (1, 2), (2, n)],
        ("blocks.1.attn.hook_result",): [(0, 1), (2, n)],
        ("hook_embed", "unembed.hook_in"): [(0, n)],
        tuple(model.hook_names): [],
    }
    for names, ranges in asked.items():
        with fused_calls() as calls:
            model.run_with_cache(tokens_BP, list(names))
        assert calls == (ranges if fuses(model) else []), names


def test_captures_on_the_way_are_those_of_an_opened_block(model: HookedTransformer) -> None:
    """Names captured inside the one call, against the same names hooked, which opens the block."""
    tokens_BP, mask_BP = padded([draw_tokens(model, n, seed=n) for n in (40, 17)], "left")
    names = [name for name in model.hook_names if name.split(".", 2)[-1] in TAPS]
    opened: dict[str, torch.Tensor] = {}
    keep = [(name, lambda x, hook: opened.update({hook.name: x.clone()})) for name in names]
    with fused_calls() as calls:
        logits = model.run_with_hooks(tokens_BP, keep, attention_mask=mask_BP)
        assert not calls
        tapped_logits, tapped = model.run_with_cache(tokens_BP, names, attention_mask=mask_BP)
        assert len(calls) == (model.config.n_layers if fuses(model) else 0)
    assert_same({"logits": logits, **opened}, {"logits": tapped_logits, **tapped})


def test_run_with_cache_is_a_plain_forward(model: HookedTransformer) -> None:
    tokens_BP, mask_BP = padded([draw_tokens(model, n, seed=n) for n in (3, 8)], "right")
    plain = model(tokens_BP, attention_mask=mask_BP)
    for names in (None, lambda name: True, "hook_embed"):
        logits, cache = model.run_with_cache(tokens_BP, names, attention_mask=mask_BP)
        assert_same({"logits": logits}, {"logits": plain})
    assert list(cache) == ["hook_embed"]


def test_selected_rows_are_the_whole_ones(model: HookedTransformer) -> None:
    """Patterns of a position are recomputed on the side, with the bits of all of them."""
    tokens_BP, mask_BP = padded([draw_tokens(model, n, seed=n) for n in (40, 17)], "left")
    names = model.hook_names
    _, whole = model.run_with_cache(tokens_BP, names, attention_mask=mask_BP)
    for pos_slice, columns in ((-1, [39]), ((3, 30, 4), [*range(3, 30, 4)]), ([25, 38], [25, 38])):
        _, part = model.run_with_cache(tokens_BP, names, pos_slice, attention_mask=mask_BP)
        for name in names:
            keys = name.endswith(("hook_attn_scores", "hook_pattern"))
            want = whole[name][:, :, columns] if keys else whole[name][:, columns]
            assert_same({name: part[name]}, {name: want})


def test_stopping_early_is_the_same_stream(model: HookedTransformer) -> None:
    tokens_BP = draw_tokens(model, 2, N_TOKENS)
    _, cache = model.run_with_cache(tokens_BP, lambda name: name.endswith("hook_resid_pre"))
    for layer in range(model.config.n_layers):
        name = f"blocks.{layer}.hook_resid_pre"
        assert_same({name: model(tokens_BP, stop_at_layer=layer)}, {name: cache[name]})


def test_hooks_under_a_cache(model: HookedTransformer) -> None:
    """Identity hooks on every name while decoding from a prompt of 60 across a page."""
    tokens_P = draw_tokens(model, 68)
    expected = Views(model).alone(tokens_P)
    views = Views(model)
    views.keep_cache(1)
    with model.hooks([(name, cloned) for name in model.hook_names]):
        pieces = [views(tokens_P[None, :60])] + [views(tokens_P[None, i : i + 1]) for i in range(60, 68)]  # fmt: skip # noqa: E501
    logits = torch.cat([row["logits"] for (row,) in pieces])
    assert_same({"logits": logits}, {"logits": expected["logits"]})
