"""The number of ranks changes no bit of logits, hooks and generated tokens.

Tensor names: B batch, P padded positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import bitlens
import pytest
import torch
from bitlens.audit.invariance.observation import observe
from bitlens.model.ops.packed import pack
from bitlens.model.parallel import SamplingRanks, run_in_threads
from bitlens.model.sampling import SamplingParams, sample
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import ARCHITECTURES, assert_same, dtypes_of
from parallel.sharded import SIZES, TIMEOUT, checkpoint_of, draw_batch, on_ranks, same, whole
from support.random_models import random_checkpoint

CASES = [
    pytest.param(architecture, size, dtype, marks=marks)
    for architecture in ARCHITECTURES
    for dtype, sizes, marks in (
        ("fp32", SIZES, ()),
        ("bf16", SIZES, ()),
        ("hf_bf16", (2, 3), ()),
        ("bf16_weights", (2, 3), pytest.mark.nightly),
    )
    for size in sizes
    if dtype in dtypes_of(architecture)
]


@pytest.fixture(autouse=True)
def _torch_on_one_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("architecture", "size", "dtype"), CASES)
def test_logits_and_every_hook(architecture: str, size: int, dtype: str) -> None:
    tokens_BP, mask_BP = draw_batch(260)

    def views(model: HookedTransformer) -> list[dict[str, torch.Tensor]]:
        hooked = observe(model, tokens_BP, model.hook_names, mask_BP)
        bare = observe(model, tokens_BP, [], mask_BP)
        last = model.forward_last(tokens_BP, mask_BP)
        rows = zip(hooked, bare, last, strict=True)
        return [h | {"bare": b["logits"], "last": x} for h, b, x in rows]

    expected = views(whole(architecture, dtype))
    for found in on_ranks(size, views, architecture, dtype):
        for row, want in zip(found, expected, strict=True):
            assert_same(row, want)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_64_generated_tokens(size: int, temperature: float) -> None:
    tokens_BP, mask_BP = draw_batch(260, seed=1)
    captured = ["blocks.1.hook_resid_post", "blocks.2.attn.hook_pattern", "unembed.hook_out"]

    def generate(model: HookedTransformer, capture: list[str]) -> dict[str, torch.Tensor]:
        out = model.generate(
            tokens_BP,
            attention_mask=mask_BP,
            max_new_tokens=64,
            temperature=temperature,
            top_p=0.97,
            seed=11,
            capture=capture,
        )
        return {"tokens": out.tokens, **out.captured}

    expected = generate(whole("qwen2"), captured)
    assert expected["tokens"].shape == (3, 73)
    assert len(expected["tokens"][:, 9:].unique()) > 10
    for found in on_ranks(size, lambda model: generate(model, captured), "qwen2"):
        assert_same(found, expected)
    for found in on_ranks(size, lambda model: generate(model, []), "qwen2"):
        assert torch.equal(found["tokens"], expected["tokens"])


@pytest.mark.parametrize("size", [3, 16])
def test_logits_stay_sharded_for_the_sampler(size: int) -> None:
    tokens_BP, mask_BP = draw_batch(260)
    logits_BV = whole("llama").forward_last(tokens_BP, mask_BP)
    params = SamplingParams(temperature=0.9, top_p=0.95, seed=3)
    positions = [9, 5, 1]
    expected = sample(logits_BV, params, positions=positions).tokens

    def run(model: HookedTransformer) -> tuple[int, torch.Tensor, torch.Tensor]:
        part = model.forward_last_slice(tokens_BP, mask_BP)
        assert model.group is not None
        start, ranks = model.vocab_start, SamplingRanks(model.group)
        tokens = sample(part, params, positions=positions, group=ranks, vocab_start=start).tokens
        return start, part, tokens

    parts = on_ranks(size, run)
    assert same(torch.cat([part for _, part, _ in parts], dim=1), logits_BV)
    assert any(part.shape[1] == 0 for _, part, _ in parts) == (size == 16)
    for start, part, tokens in parts:
        assert same(part, logits_BV[:, start : start + part.shape[1]])
        assert torch.equal(tokens, expected)


@pytest.mark.parametrize(
    "name",
    [
        "hook_tokens",
        "blocks.1.ln1.hook_scale",
        "blocks.0.hook_q_input",
        "blocks.1.attn.hook_pattern",
        "blocks.1.attn.hook_result",
        "blocks.2.mlp.hook_post",
        "unembed.hook_out",
    ],
)
def test_edits_reach_as_far(name: str) -> None:
    tokens_BP, mask_BP = draw_batch(260)

    def edit(tensor: torch.Tensor, hook: Any) -> None:
        if tensor.is_floating_point():
            tensor *= 0.5
        else:
            tensor[:] = 7

    def run(model: HookedTransformer) -> tuple[torch.Tensor, torch.Tensor]:
        with model.hooks([(name, edit)]):
            logits = model(tokens_BP, attention_mask=mask_BP)
            return logits, model.generate(tokens_BP, max_new_tokens=3, seed=1).tokens

    logits, tokens = run(whole("llama"))
    assert not same(logits, whole("llama")(tokens_BP, attention_mask=mask_BP))
    for found_logits, found_tokens in on_ranks(3, run):
        assert same(found_logits, logits)
        assert torch.equal(found_tokens, tokens)


def test_overrides_and_early_stops() -> None:
    tokens_BP, _ = draw_batch(260)

    def doubled(original: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        y: torch.Tensor = original(*args, **kwargs)
        return y * 2

    def run(model: HookedTransformer) -> list[torch.Tensor]:
        seen = [model(tokens_BP, stop_at_layer=2), model(tokens_BP, return_type="loss")[None]]
        for address in ("blocks.1.attn.k", "unembed", "embed"):
            with model.override(address, doubled):
                seen.append(model(tokens_BP))
                seen.append(model.generate(tokens_BP, max_new_tokens=2, seed=0).tokens)
        return seen

    expected = run(whole("qwen2"))
    for found in on_ranks(3, run, "qwen2"):
        assert all(same(x, y) for x, y in zip(found, expected, strict=True))


def test_continued_caches() -> None:
    tokens_BP, mask_BP = draw_batch(260)
    more_BP, _ = draw_batch(260, seed=2)

    def run(model: HookedTransformer) -> torch.Tensor:
        cache = model.new_cache(3)
        model(tokens_BP, attention_mask=mask_BP, kv_cache=cache)
        logits: torch.Tensor = model(more_BP, kv_cache=cache)
        return logits

    expected = run(whole("mistral"))
    assert all(same(found, expected) for found in on_ranks(5, run, "mistral"))


def test_a_minus_zero_in_the_embedding_survives() -> None:
    checkpoint = checkpoint_of("llama")
    table = checkpoint.reader.tensors["embed.weight"]  # type: ignore[attr-defined]
    kept = table[200].clone()
    table[200] = -0.0
    try:
        seen = on_ranks(4, lambda m: m(torch.tensor([[200]]), stop_at_layer=0))
    finally:
        table[200] = kept
    assert all(bool(torch.signbit(x).all()) for x in seen)


def test_a_random_seed_is_the_same_on_every_rank() -> None:
    prompt = torch.tensor([[1, 2, 3]])
    first, *others = on_ranks(
        3, lambda m: m.generate(prompt, max_new_tokens=8, temperature=2.0).tokens
    )
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_rank_keeps_its_part_of_the_weights(size: int) -> None:
    changes = {"d_model": 640, "d_head": 64, "n_heads": 10, "d_mlp": 960, "d_vocab": 1920}
    checkpoint = random_checkpoint("qwen2", n_key_value_heads=10, **changes)
    total = bitlens.load(checkpoint).weight_bytes()
    parts = run_in_threads(
        size, lambda group: bitlens.load(checkpoint, group=group).weight_bytes(), timeout=TIMEOUT
    )
    assert sum(parts) == total
    assert max(parts) <= 1.05 * total / size


def test_control_adding_partial_products_moves_bits() -> None:
    """What is never done here: the inputs of down split over two ranks, their products added."""
    checkpoint, model = checkpoint_of("llama"), whole("llama")
    tokens_BP, _ = draw_batch(260)
    matrix = checkpoint.matrix("blocks.0.mlp.down.weight")
    halves = matrix.data.split(matrix.k // 2, dim=1)
    weights = [
        pack(type(matrix)(matrix.format, matrix.n, half.shape[1], half.contiguous()))
        for half in halves
    ]

    def all_reduced(original: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        parts = x.split(matrix.k // 2, dim=1)
        return sum(model.ops.linear(part, w) for part, w in zip(parts, weights, strict=True))

    expected = model(tokens_BP)
    with model.override("blocks.0.mlp.down", all_reduced):
        moved = model(tokens_BP)
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-3)
    assert not same(moved, expected)
