"""Every hook of SmolLM2 against TransformerLens: name, shape and, within a derived bound, value.

Both run in lockstep: at every hook TransformerLens's value is kept and ours put in its place, so
each difference is the error of one step and not of the thirty layers before it.
"""

from __future__ import annotations

from collections.abc import Iterator

import bitlens
import pytest
import torch
from bitlens.benchmarks.accuracy import MARGIN, Logits
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from support.error_bounds import Rounding
from support.lockstep import EXACT, LocalBounds, used
from support.transformer_lens_peer import split_inputs, transformer_lens_llama
from transformer_lens import HookedTransformer as TransformerLens
from transformer_lens.hook_points import HookPoint

Values = dict[str, torch.Tensor]

SPLIT = ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")
"""Names that TransformerLens fires only in its split mode."""

OURS_ALONE = ("mlp.hook_in", "mlp.hook_out")
"""Names of TransformerLens's bridge, which circuit-tracer reads; its 3.9 Llama lacks them."""


@pytest.fixture(scope="module")
def model(smollm2: Checkpoint) -> HookedTransformer:
    return bitlens.load(smollm2)


@pytest.fixture(scope="module")
def lens(smollm2: Checkpoint) -> TransformerLens:
    return transformer_lens_llama(smollm2)


@pytest.fixture(scope="module")
def tokens(model: HookedTransformer) -> torch.Tensor:
    """Two rows of 16 tokens."""
    texts = (
        "To make the dough, mix 500 g of flour with",
        "def search(items, target):\n    low = 0",
    )
    rows = [(model.to_tokens(text)[0].tolist() * 2)[:16] for text in texts]
    return torch.tensor(rows)


@pytest.fixture(scope="module")
def ours(model: HookedTransformer, tokens: torch.Tensor) -> Values:
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: True)
    return {name: cache[name] for name in model.hook_names}


@torch.no_grad()
def lockstep(lens: TransformerLens, tokens: torch.Tensor, ours: Values, split: bool) -> Values:
    """TransformerLens's value at each hook, computed from our values at the hooks before it."""
    found: Values = {}

    def swap(tensor: torch.Tensor, hook: HookPoint) -> torch.Tensor:
        assert hook.name is not None
        found[hook.name] = tensor.clone()
        # In split mode ln1 has an axis of heads, and hooks of another shape.
        return ours[hook.name] if tensor.shape == ours[hook.name].shape else tensor

    split_inputs(lens, split)
    names = [name for name in lens.hook_dict if name in ours]
    lens.run_with_hooks(tokens, fwd_hooks=[(name, swap) for name in names])
    return found


@pytest.fixture(scope="module")
def theirs(lens: TransformerLens, tokens: torch.Tensor, ours: Values) -> Values:
    split = lockstep(lens, tokens, ours, split=True)
    gated = {name: x for name, x in split.items() if name.endswith(SPLIT)}
    return lockstep(lens, tokens, ours, split=False) | gated


def bounds(checkpoint: Checkpoint, values: Values) -> Iterator[tuple[str, torch.Tensor]]:
    """Each hook's bound on the difference: twice TransformerLens's own, which is the larger."""
    local = LocalBounds(checkpoint, values, Rounding(angles=True))
    for i in range(checkpoint.config.n_layers):
        yield from ((name, 2 * bound) for name, bound in local.block(i).items())
    yield from ((name, 2 * bound) for name, bound in local.outside_blocks().items())


def test_names(model: HookedTransformer, lens: TransformerLens) -> None:
    extra = set(model.hook_names) - set(lens.hook_dict)
    assert set(lens.hook_dict) <= set(model.hook_names)
    assert extra == {f"blocks.{i}.{name}" for i in range(30) for name in OURS_ALONE}


def test_every_name_fires_with_its_shape(
    lens: TransformerLens, ours: Values, theirs: Values
) -> None:
    assert set(theirs) == set(lens.hook_dict)
    for name, x in theirs.items():
        assert (x.shape, x.dtype) == (ours[name].shape, ours[name].dtype), name


def test_copies_are_equal(ours: Values, theirs: Values) -> None:
    copies = [name for name in theirs if name.endswith(EXACT)]
    assert len(copies) == 2 + 30 * (len(EXACT) - 2)
    for name in copies:
        assert torch.equal(theirs[name], ours[name]), name


def test_values_are_within_the_bound(smollm2: Checkpoint, ours: Values, theirs: Values) -> None:
    seen = set()
    for name, bound in bounds(smollm2, ours):
        if name.endswith(OURS_ALONE):
            continue
        seen.add(name)
        assert used(ours[name], theirs[name], bound) <= 1, name
    assert seen == {name for name in theirs if not name.endswith(EXACT)}


def test_the_bound_tells_gate_from_up(smollm2: Checkpoint, ours: Values, theirs: Values) -> None:
    gate, up = "blocks.0.mlp.hook_pre", "blocks.0.mlp.hook_pre_linear"
    bound = LocalBounds(smollm2, ours, Rounding()).block(0)[gate]
    assert used(ours[up], theirs[gate], 2 * bound) > 1


def test_a_rounding_to_bf16_leaves_the_bound(
    smollm2: Checkpoint, ours: Values, theirs: Values
) -> None:
    name = "blocks.29.mlp.hook_post"
    bound = LocalBounds(smollm2, ours, Rounding()).block(29)[name]
    assert used(ours[name].bfloat16(), theirs[name], 2 * bound) > 1


@torch.no_grad()
def test_free_running_top_1_agrees_where_the_truth_is_decided(
    ours: Values, lens: TransformerLens, tokens: torch.Tensor, truth: Logits
) -> None:
    split_inputs(lens, False)
    for row, ours_PV in zip(tokens, ours["unembed.hook_out"], strict=True):
        best = truth(row).topk(2).values
        decided_P = best[:, 0] - best[:, 1] > MARGIN
        differs_P = ours_PV.argmax(-1) != lens(row[None])[0].argmax(-1)
        assert bool(decided_P.any())
        assert not bool((decided_P & differs_P).any())
