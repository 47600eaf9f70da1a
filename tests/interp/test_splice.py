"""Dictionaries spliced into a model: what moves no bit, what moves, and the order it moves in.

Tensor names: B batch, P positions, F features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import bitlens
import pytest
import torch
from bitlens.interp.splicing import Edit, splice
from bitlens.model.hooks.captures import Captures
from bitlens.model.hooks.registry import HookPoint, same_bits
from bitlens.model.parallel import Group, run_in_threads
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_dictionaries import D_SAE
from support.random_models import random_checkpoint, random_model
from support.spliced_llama import (
    CLEAN,
    MLP,
    MODEL,
    MODELS,
    PLACES,
    RESID,
    SAE,
    TOKENS,
    TRANSCODER,
    active_feature,
    acts_of,
    placed,
)

# Without edits.


@pytest.mark.parametrize("dtype", MODELS)
@pytest.mark.parametrize("place", [*PLACES, "all"])
def test_with_error_terms_no_bit_moves(place: str, dtype: str) -> None:
    model = MODELS[dtype]
    names = list(PLACES) if place == "all" else [place]
    dictionaries = [placed(name, model) for name in names]
    clean = model(TOKENS)
    with splice(model, dictionaries) as spliced:
        assert same_bits(model(TOKENS), clean)
        logits, cache = spliced.run_with_cache(TOKENS, return_type="logits")
        assert same_bits(logits, clean)
    written = [d.cfg.hook_name_out for d in dictionaries]
    assert spliced.n_encoded == dict.fromkeys(written, 2 * TOKENS.numel())
    for dictionary, at in zip(dictionaries, written, strict=True):
        acts = cache[f"{at}.hook_sae_acts_post"]
        assert acts.shape == (*TOKENS.shape, D_SAE)
        assert bool((acts != 0).any(-1).all()), dictionary
    assert same_bits(model(TOKENS), clean)


def test_a_pass_that_ends_early_is_spliced_too() -> None:
    found, plain = (Captures(frozenset({RESID})) for _ in range(2))
    with splice(MODEL, SAE, use_error_term=False) as spliced:
        spliced.forward_captures(TOKENS[:1], MODEL.new_cache(), found)
        _, want = spliced.run_with_cache(TOKENS[:1], RESID)
    MODEL.forward_captures(TOKENS[:1], MODEL.new_cache(), plain)
    assert same_bits(found.found[RESID], want[RESID])
    assert not same_bits(found.found[RESID], plain.found[RESID])


def test_the_naive_error_term_moves_bits() -> None:
    def naive(x: torch.Tensor, hook: Any) -> torch.Tensor:
        reconstruction = SAE(x)
        return reconstruction + (x - reconstruction)

    assert not same_bits(MODEL.run_with_hooks(TOKENS, [(RESID, naive)]), CLEAN)


@pytest.mark.parametrize("dtype", MODELS)
@pytest.mark.parametrize("place", PLACES)
def test_without_error_terms_it_is_a_hook_that_writes_the_reconstruction(
    place: str, dtype: str
) -> None:
    model = MODELS[dtype]
    dictionary = placed(place, model)
    cfg = dictionary.cfg
    seen: list[torch.Tensor] = []

    def read(x: torch.Tensor, hook: Any) -> None:
        seen[:] = [x.flatten(2)]

    def write(y: torch.Tensor, hook: Any) -> torch.Tensor:
        x = seen[0] if cfg.is_transcoder else y.flatten(2)
        return dictionary(x).to(y.dtype).view(y.shape)

    plain = model.run_with_hooks(TOKENS, [(cfg.hook_name, read), (cfg.hook_name_out, write)])
    with splice(model, dictionary, use_error_term=False) as spliced:
        assert same_bits(model(TOKENS), plain)
        assert same_bits(spliced.run_with_cache(TOKENS)[0], plain)
    assert not same_bits(plain, model(TOKENS))


# With edits.


@pytest.mark.parametrize("use_error_term", [True, False])
@pytest.mark.parametrize("place", ["resid_post", "z", "mlp"])
def test_a_clamp_moves_nothing_before_its_position(place: str, use_error_term: bool) -> None:
    dictionary = placed(place)
    with splice(MODEL, dictionary, use_error_term=use_error_term):
        before = MODEL(TOKENS)
    edit = Edit(5, "set", 4.0, positions=3)
    with splice(MODEL, dictionary, use_error_term=use_error_term, edits=[edit]):
        after = MODEL(TOKENS)
    assert same_bits(after[:, :3], before[:, :3])
    moved_P = (after != before).any(-1)[0]
    assert bool(moved_P[3:].all())


@pytest.mark.parametrize("dtype", MODELS)
@pytest.mark.parametrize("place", ["resid_post", "mlp", "mlp_inside"])
def test_an_edited_row_is_the_stated_formula(place: str, dtype: str) -> None:
    model = MODELS[dtype]
    dictionary = placed(place, model)
    cfg = dictionary.cfg
    _, clean = model.run_with_cache(TOKENS, [cfg.hook_name, cfg.hook_name_out])
    x, y = clean[cfg.hook_name], clean[cfg.hook_name_out]
    original = dictionary.encode(x)
    edited = original.clone()
    edited[:, 2:5, 9] = 1.5
    difference = dictionary.decode(edited, x) - dictionary.decode(original, x)
    expected = y.clone()
    expected[:, 2:5] = (y.float() + difference).to(y.dtype)[:, 2:5]
    with splice(model, dictionary, edits=[Edit(9, "set", 1.5, slice(2, 5))]) as spliced:
        _, cache = model.run_with_cache(TOKENS, cfg.hook_name_out)
        name = f"{cfg.hook_name_out}.hook_sae_acts_post"
        _, inside = spliced.run_with_cache(TOKENS, [cfg.hook_name_out, name])
    for found in (cache, inside):
        assert same_bits(found[cfg.hook_name_out], expected)
    assert same_bits(inside[name], edited)


def test_every_kind_of_edit() -> None:
    feature = active_feature(4)
    acts = acts_of(MODEL, SAE, TOKENS)[0, :, feature]
    expected: list[tuple[Edit, torch.Tensor]] = [
        (Edit(feature, "set", 2.0), torch.full_like(acts, 2.0)),
        (Edit(feature, "scale", -3.0), acts * -3.0),
        (Edit(feature, "add", 0.5), acts + 0.5),
        (Edit(feature, "ablate"), torch.zeros_like(acts)),
        (Edit(feature, "ablate", positions=[4]), acts.index_fill(0, torch.tensor(4), 0.0)),
        (Edit(feature, "add", 1.0, slice(1, None, 3)), acts + (torch.arange(8) % 3 == 1)),
    ]
    for edit, wanted in expected:
        name = f"{RESID}.hook_sae_acts_post"
        with splice(MODEL, SAE, edits=[edit]) as spliced:
            _, cache = spliced.run_with_cache(TOKENS, name)
        assert torch.equal(cache[name][0, :, feature], wanted), edit


def test_edits_follow_each_other() -> None:
    edits = [Edit(3, "set", 2.0, 1), Edit(3, "scale", 4.0), Edit(3, "add", 1.0, [1])]
    name = f"{RESID}.hook_sae_acts_post"
    with splice(MODEL, SAE, edits=edits) as spliced:
        _, cache = spliced.run_with_cache(TOKENS, name)
    assert float(cache[name][0, 1, 3]) == 9.0


def test_patching_a_feature_from_another_run() -> None:
    other = torch.tensor([[8, 8, 2, 6, 1, 5, 5, 2]])
    feature = int(acts_of(MODEL, SAE, other)[0].amax(0).argmax())
    source = acts_of(MODEL, SAE, other)[0, :, feature]
    patch = Edit(feature, "set", source)
    name = f"{RESID}.hook_sae_acts_post"
    with splice(MODEL, SAE, edits=[patch]) as spliced:
        logits, cache = spliced.run_with_cache(TOKENS, name)
    assert same_bits(cache[name][0, :, feature], source)
    assert not same_bits(logits, CLEAN)
    own = acts_of(MODEL, SAE, TOKENS)[0, :, feature]
    with splice(MODEL, SAE, edits=[Edit(feature, "set", own)]):
        assert same_bits(MODEL(TOKENS), CLEAN)
    with pytest.raises(ValueError, match="goes on beyond"), splice(MODEL, SAE, edits=[patch]):
        MODEL(torch.cat([TOKENS, TOKENS], dim=1))


# Runs of every kind.


EDITS = [
    Edit(5, "set", 3.0, slice(2, None), RESID),
    Edit(11, "add", 2.0, [0, 9], MLP[0]),
    Edit(2, "scale", -1.0, None, MLP[1]),
]


@pytest.mark.parametrize("dtype", MODELS)
@pytest.mark.parametrize("use_error_term", [True, False])
def test_cached_generation_is_uncached_forward(use_error_term: bool, dtype: str) -> None:
    model = MODELS[dtype]
    pair = [placed("resid_post", model), placed("mlp", model)]
    names = [RESID, MLP[1], f"{RESID}.hook_sae_acts_post", f"{MLP[1]}.hook_sae_output"]
    with splice(model, pair, use_error_term=use_error_term, edits=EDITS) as spliced:
        result = spliced.generate(TOKENS, max_new_tokens=5, capture=names)
        assert torch.equal(model.generate(TOKENS, max_new_tokens=5).tokens, result.tokens)
        logits, cache = spliced.run_with_cache(result.tokens[:, :-1], names)
    assert torch.equal(logits[0, 7:].argmax(-1), result.tokens[0, 8:])
    for name in names:
        assert same_bits(result.captured[name], cache[name]), name
    plain = model.generate(TOKENS, max_new_tokens=5, capture=[RESID])
    assert not same_bits(plain.captured[RESID], result.captured[RESID])


@settings(max_examples=10)
@given(
    cuts=st.sets(st.integers(1, 9)),
    positions=st.sets(st.integers(0, 9), min_size=1),
    feature=st.integers(0, D_SAE - 1),
    value=st.floats(-8, 8, width=32),
)
def test_chunks_do_not_matter(
    cuts: set[int], positions: set[int], feature: int, value: float
) -> None:
    tokens = torch.arange(10)[None] * 7 % 50
    edits = [
        Edit(feature, "set", value, sorted(positions), RESID),
        Edit(feature, "add", value, slice(min(positions), None), MLP[1]),
    ]
    with splice(MODEL, [SAE, TRANSCODER], edits=edits):
        whole = MODEL(tokens)
        cache = MODEL.new_cache()
        ends = [0, *sorted(cuts), 10]
        spans = itertools.pairwise(ends)
        chunks = [MODEL(tokens[:, a:b], kv_cache=cache) for a, b in spans]
    assert same_bits(torch.cat(chunks, dim=1), whole)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch(side: str) -> None:
    rows = [[7, 3, 1, 4, 1, 5, 9, 2, 6, 5], [2, 7], [1, 8, 2]]
    tokens = torch.zeros(3, 10, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    spans = [slice(10 - len(r), 10) if side == "left" else slice(0, len(r)) for r in rows]
    for b, (row, span) in enumerate(zip(rows, spans, strict=True)):
        tokens[b, span], mask[b, span] = torch.tensor(row), 1
    name = f"{RESID}.hook_sae_acts_post"
    edits = [Edit(5, "set", 3.0, [1], RESID), Edit(11, "add", 2.0, slice(0, 2), MLP[1])]
    with splice(MODEL, [SAE, TRANSCODER], edits=edits) as spliced:
        logits, cache = spliced.run_with_cache(tokens, name, attention_mask=mask)
        n_encoded = dict(spliced.n_encoded)
        for b, (row, span) in enumerate(zip(rows, spans, strict=True)):
            alone, inside = spliced.run_with_cache(torch.tensor([row]), name)
            assert same_bits(logits[b, span], alone[0])
            assert same_bits(cache[name][b, span], inside[name][0])
    assert set(n_encoded.values()) == {15}
    assert not cache[name][mask == 0].any()
    with splice(MODEL, [SAE, TRANSCODER], edits=edits) as spliced:
        together = spliced.generate(rows, max_new_tokens=3, capture=name)
        for b, row in enumerate(rows):
            one = spliced.generate(row, max_new_tokens=3, capture=name)
            assert torch.equal(one.tokens[0], together.tokens[b, 10 - len(row) :])
            assert same_bits(one.captured[name][0], together.captured[name][b, 10 - len(row) :])
        assert not together.captured[name][1, :8].any()


@pytest.mark.parametrize("size", [2, 3])
def test_ranks(size: int) -> None:
    options: dict[str, Any] = {"use_error_term": False, "edits": [EDITS[0], EDITS[2]]}

    def run(group: Group | None) -> torch.Tensor:
        model = bitlens.load(random_checkpoint("llama"), group=group)
        with splice(model, [SAE, TRANSCODER], **options):
            logits: torch.Tensor = model(TOKENS)
            return logits

    whole = run(None)
    for found in run_in_threads(size, run, timeout=60):
        assert same_bits(found, whole)


# Inside the dictionaries.


@pytest.mark.parametrize("place", ["resid_pre", "z", "mlp", "attn_out", "mlp_inside"])
def test_what_is_at_the_inner_hook_points(place: str) -> None:
    dictionary = placed(place)
    cfg = dictionary.cfg
    _, clean = MODEL.run_with_cache(TOKENS, [cfg.hook_name, cfg.hook_name_out])
    x, y = clean[cfg.hook_name].flatten(2), clean[cfg.hook_name_out]
    acts = dictionary.encode(x)
    recons = dictionary.decode(acts, x)
    expected = {
        "input": x,
        "acts_post": acts,
        "recons": recons,
        "error": y.flatten(2) - recons,
        "output": y,
    }
    if cfg.architecture != "gated":
        expected["acts_pre"] = dictionary.pre_activations(x)
    with splice(MODEL, dictionary) as spliced:
        _, cache = spliced.run_with_cache(TOKENS, lambda name: "hook_sae" in name)
        _, sliced = spliced.run_with_cache(TOKENS, pos_slice=-1, remove_batch_dim=True)
    assert set(cache) == {f"{cfg.hook_name_out}.hook_sae_{end}" for end in expected}
    for end, value in expected.items():
        name = f"{cfg.hook_name_out}.hook_sae_{end}"
        assert same_bits(cache[name], value), end
        assert same_bits(sliced[name], value[0, -1:]), end


def test_functions_inside() -> None:
    feature = active_feature(6)

    def ablate(acts: torch.Tensor, hook: HookPoint) -> None:
        acts[:, :, feature] = torch.where(hook.positions >= 5, 0.0, acts[:, :, feature])

    inside = f"{RESID}.hook_sae_acts_post"
    with splice(MODEL, SAE) as spliced:
        found = spliced.run_with_hooks(TOKENS, [(inside, ablate)])
        assert same_bits(spliced(TOKENS), CLEAN)
        with pytest.raises(ValueError, match="read, not edited"):
            spliced.run_with_hooks(TOKENS, [(f"{RESID}.hook_sae_recons", zero)])
        with pytest.raises(KeyError, match="did you mean"):
            spliced.run_with_hooks(TOKENS, [(f"{RESID}.hook_sae_acts", ablate)])
    with splice(MODEL, SAE, edits=[Edit(feature, "ablate", positions=slice(5, None))]):
        assert same_bits(MODEL(TOKENS), found)
    assert not same_bits(found, CLEAN)


def zero(x: torch.Tensor, hook: Any) -> torch.Tensor:
    return torch.zeros_like(x)


def test_hooks_of_the_users_see_what_was_written() -> None:
    with splice(MODEL, SAE, use_error_term=False):
        _, cache = MODEL.run_with_cache(TOKENS, RESID)
        seen: list[torch.Tensor] = []
        MODEL.run_with_hooks(TOKENS, [(RESID, lambda x, hook: seen.append(x.clone()))])
    assert same_bits(seen[0], cache[RESID])
    _, clean = MODEL.run_with_cache(TOKENS, RESID)
    assert same_bits(cache[RESID], SAE(clean[RESID]))


def test_a_transcoder_reads_what_users_leave() -> None:
    def negate(x: torch.Tensor, hook: Any) -> torch.Tensor:
        return -x

    _, clean = MODEL.run_with_cache(TOKENS, MLP[0])
    with splice(MODEL, TRANSCODER, use_error_term=False), MODEL.hooks([(MLP[0], negate)]):
        _, cache = MODEL.run_with_cache(TOKENS, MLP[1])
    assert same_bits(cache[MLP[1]], TRANSCODER(-clean[MLP[0]]))


# Gradients.


def gradient_at(name: str, run: Callable[..., torch.Tensor]) -> torch.Tensor:
    found: list[torch.Tensor] = []
    loss = run(TOKENS, bwd_hooks=[(name, lambda g, hook: found.append(g.clone()))])
    loss.backward()
    return found[0]


def loss_of(model: Any) -> Callable[..., torch.Tensor]:
    return lambda tokens, **hooks: model.run_with_hooks(tokens, return_type="loss", **hooks)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_gradients(backend: str) -> None:
    model = MODEL if backend == "native" else random_model("llama", backend="torch")
    early = "blocks.1.hook_resid_mid"
    clean = {name: gradient_at(name, loss_of(model)) for name in (early, RESID)}
    inside = f"{RESID}.hook_sae_acts_post"
    with splice(model, [SAE, TRANSCODER]) as spliced:
        found = gradient_at(early, loss_of(model))
        of_acts = gradient_at(inside, loss_of(spliced))
        _, cache = spliced.run_with_cache(
            TOKENS, [early, inside], incl_bwd=True, return_type="loss"
        )
    torch.testing.assert_close(found, clean[early], rtol=1e-4, atol=1e-7)
    # torch adds up the parts of a gradient in an order of its own.
    assert backend == "torch" or torch.equal(found, clean[early])
    torch.testing.assert_close(of_acts, clean[RESID] @ SAE.W_dec.T, rtol=1e-4, atol=1e-6)
    assert same_bits(cache[f"{inside}_grad"], of_acts)
    torch.testing.assert_close(cache[f"{early}_grad"], clean[early], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("use_error_term", [True, False])
def test_a_value_that_is_learned(use_error_term: bool) -> None:
    value = torch.tensor([2.0, 3.0], requires_grad=True)
    with splice(MODEL, SAE, use_error_term=use_error_term, edits=[Edit(5, "set", value, [2, 4])]):
        MODEL(TOKENS, return_type="loss").backward()
    assert value.grad is not None
    expected = []
    for i in range(2):
        losses = []
        for step in (0.01, -0.01):
            moved = value.detach().clone()
            moved[i] += step
            edit = Edit(5, "set", moved, [2, 4])
            with splice(MODEL, SAE, use_error_term=use_error_term, edits=[edit]):
                losses.append(float(MODEL(TOKENS, return_type="loss")))
        expected.append((losses[0] - losses[1]) / 0.02)
    torch.testing.assert_close(value.grad, torch.tensor(expected), rtol=0.02, atol=2e-5)
