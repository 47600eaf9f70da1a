"""A token's gradients have the same bits in any batch, on any thread count and instruction set.

Sequences reach past a leaf of 256 positions. Tensor names: B batch, P padded positions.
"""

from __future__ import annotations

from collections.abc import Mapping

import bitlens
import pytest
import torch
from bitlens import _core
from bitlens.model.gradients import attention
from bitlens.model.hooks.registry import has_key_axis
from bitlens.model.transformer import HookedTransformer
from hypothesis import given, settings
from hypothesis import strategies as st
from invariance.subjects import (
    ARCHITECTURES,
    assert_same,
    count_different,
    draw_tokens,
    padded,
    small,
)
from support.gradient_cases import gradient_names, gradients
from support.random_models import random_model

Seen = Mapping[str, torch.Tensor]

DTYPES = ("fp32", "bf16")
"""The native policies with gradients, less bf16_weights: fp32's kernels on rounded weights."""


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)


def row_of(seen: Seen, b: int, start: int, length: int) -> dict[str, torch.Tensor]:
    """One sequence of a padded batch."""
    own = slice(start, start + length)
    return {
        name: x[b : b + 1, :, own, own] if has_key_axis(name) else x[b : b + 1, own]
        for name, x in seen.items()
    }


def check_rows(
    model: HookedTransformer, rows: list[torch.Tensor], side: str, names: list[str]
) -> None:
    tokens_BP, mask_BP = padded(rows, side)
    seen = gradients(model, tokens_BP, names, mask_BP)
    width = max(map(len, rows))
    for b, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        alone = gradients(model, row[None], names)
        assert_same(row_of(seen, b, start, len(row)), alone)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_and_padding_move_no_bit(architecture: str, dtype: str) -> None:
    model = small(architecture, dtype)
    names = gradient_names(model)
    long, middle, short = (draw_tokens(model, n, seed=n) for n in (270, 19, 3))
    check_rows(model, [short, middle, short], "left", names)
    check_rows(model, [middle, long], "right", names)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), left=st.booleans())
@settings(max_examples=8)
def test_any_batch(lengths: list[int], left: bool) -> None:
    model = small("gemma3", "bf16")
    rows = [draw_tokens(model, n, seed=i) for i, n in enumerate(lengths)]
    names = ["hook_embed", "blocks.1.attn.hook_v", "blocks.0.attn.hook_pattern"]
    check_rows(model, rows, "left" if left else "right", names)


@pytest.mark.parametrize(("architecture", "dtype"), [("llama", "fp32"), ("gemma3", "bf16")])
def test_threads_and_flush_to_zero_move_no_bit(architecture: str, dtype: str) -> None:
    model = small(architecture, dtype)
    names, tokens = gradient_names(model), draw_tokens(model, 2, 70)
    expected = gradients(model, tokens, names)
    for threads, flush in ((1, False), (2, False), (4, True)):
        bitlens.set_num_threads(threads)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flush)
        assert_same(gradients(model, tokens, names), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_instruction_set_moves_no_bit(architecture: str, dtype: str) -> None:
    model = random_model(architecture, dtype=dtype)  # generic code is slow without FMA
    names, tokens = gradient_names(model), draw_tokens(model, 1, 7)
    expected = gradients(model, tokens, names)
    for isa in _core.available_isas():
        _core.set_isa(isa)
        assert_same(gradients(model, tokens, names), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reading_hook_moves_no_bit(architecture: str, dtype: str) -> None:
    """Hooked alone, each operation is one node; hooked all, norms and attention are in parts."""
    model = small(architecture, dtype)
    names, tokens = gradient_names(model), draw_tokens(model, 2, 9)
    expected = gradients(model, tokens, names)
    for name in names if architecture == "gemma3" else one_of_each(names):
        assert_same(gradients(model, tokens, [name]), {name: expected[name]})
    assert_same({"logits": model(tokens)}, {"logits": _logits(model, tokens, names)})


def one_of_each(names: list[str]) -> list[str]:
    """Every kind of name once."""
    return [name for name in names if not name.startswith(("blocks.0.", "blocks.2."))]


def _logits(model: HookedTransformer, tokens: torch.Tensor, names: list[str]) -> torch.Tensor:
    hooks = [(name, lambda tensor, hook: None) for name in names]
    logits: torch.Tensor = model.run_with_hooks(tokens, bwd_hooks=hooks)
    assert logits.requires_grad
    return logits.detach()


def test_blocks_of_another_length_move_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    model = small("llama", "fp32")
    names, tokens = ["hook_embed"], draw_tokens(model, 1, 40)
    expected = gradients(model, tokens, names)
    monkeypatch.setattr(attention, "BLOCK", 16)
    assert count_different(gradients(model, tokens, names), expected)
