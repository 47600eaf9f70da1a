"""Insides before and after: what was planted is found where it was planted, and nowhere else."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
import torch
from bitlens.alignment.insides import (
    ablate,
    cosine,
    movement,
    refusal_direction,
    refusal_lead,
    staleness,
    swap_blocks,
    without_direction,
)
from bitlens.alignment.standin import prompts
from bitlens.interp.probes.data import Dataset, Example, LeakError
from bitlens.model.config import ModelConfig
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from support.random_models import MemoryReader
from support.training_models import small_checkpoint

PLANTED = 1


def _model(change: float = 0.0, layer: int = PLANTED) -> HookedTransformer:
    """The small model, with one block's matrices shifted by noise of this size."""
    checkpoint = small_checkpoint()
    assert isinstance(checkpoint.reader, MemoryReader)
    generator = torch.Generator().manual_seed(3)
    for name in sorted(checkpoint.reader.tensors):
        if name.startswith(f"blocks.{layer}.") and checkpoint.reader.tensors[name].ndim == 2:
            x = checkpoint.reader.tensors[name]
            noise = torch.randn(x.shape, generator=generator) * x.std()
            checkpoint.reader.tensors[name] = x + change * noise
    return load(checkpoint)


@pytest.fixture(scope="module")
def models() -> tuple[HookedTransformer, HookedTransformer]:
    return _model(), _model(0.5)


ROWS = [row for row in prompts("standin", 8, seed=0, templates="plain") if len(row.text) < 60][:3]
OTHERS = [row for row in prompts("benign", 8, seed=0, templates="plain") if len(row.text) < 60][:3]


def test_only_the_planted_block_s_weights_moved(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    found = movement(*models, ["a b c", "what is it"])
    assert [layer.weights > 0 for layer in found] == [i == PLANTED for i in range(len(found))]
    assert found[PLANTED].weights == pytest.approx(0.5, rel=0.05)
    assert found[0].stream == 0, "nothing before the block can differ"
    assert found[0].cosine == pytest.approx(1)
    assert found[2].stream > 0
    assert all(
        layer.weights == layer.stream == 0 for layer in movement(models[0], models[0], ["a"])
    )


def test_swapping_the_planted_block_back_restores_the_bits(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    found = swap_blocks(*models, ROWS)
    assert found.before != found.after
    assert found.blocks[PLANTED].lead == found.before
    assert found.blocks[PLANTED].restored == 1
    others = [swap for swap in found.blocks if swap.layer != PLANTED]
    assert all(swap.lead == found.after and swap.restored == 0 for swap in others)


def test_a_direction_is_found_and_taken_out(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    before = models[0]
    old, new = (refusal_direction(model, ROWS, OTHERS, 2) for model in models)
    assert float(old.norm()) == pytest.approx(1)
    assert cosine(old, old) == pytest.approx(1)
    assert cosine(old, new) < 0.999
    name = "blocks.2.hook_resid_post"
    _, cache = before.run_with_cache("some text", [name], return_type=None)
    assert float((cache[name].double() @ old).abs().max()) > 1e-3
    seen = []
    with without_direction(before, old):
        before.run_with_hooks(
            "some text", [(name, lambda x, hook: seen.append(x.clone()))], return_type=None
        )
    largest = float(seen[0].abs().max())
    left = float((seen[0].double() @ old).abs().max())
    # Per component: the projection's and the product's roundings, of d terms in fp32.
    assert left <= 4 * before.config.d_model * 2.0**-24 * largest * before.config.d_model**0.5
    found = ablate(before, old, ROWS)
    assert found.lead == refusal_lead(before, ROWS), "hooks are gone again"
    assert found.ablated != found.lead != found.random


def test_a_direction_is_ablated_on_the_stand_in_alone(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    unit = refusal_direction(models[0], ROWS, OTHERS, 0)
    with pytest.raises(TypeError, match="on the stand-in alone"):
        ablate(models[0], unit, ["some other text"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="no direction"):
        refusal_direction(models[0], ROWS, ROWS, 0)
    with pytest.raises(ValueError, match="3 blocks"):
        refusal_direction(models[0], ROWS, OTHERS, 3)


def _with_letters_swapped() -> HookedTransformer:
    """The small model, in whose embedding a-h and s-z have changed places."""
    checkpoint = small_checkpoint()
    assert isinstance(checkpoint.reader, MemoryReader)
    rows = checkpoint.reader.tensors["embed.weight"].clone()
    first, last = (torch.arange(ord(c), ord(c) + 8) for c in "as")
    rows[first], rows[last] = rows[last].clone(), rows[first].clone()
    checkpoint.reader.tensors["embed.weight"] = rows
    return load(checkpoint)


def _letters(n: int, seed: int) -> Dataset:
    """Texts of the letters a-h, 0, and of s-z, 1."""
    source = random.Random(seed)
    alphabets = ("abcdefgh", "stuvwxyz")
    texts = ["".join(source.choices(alphabets[i % 2], k=12)) for i in range(n)]
    rows = enumerate(texts)
    return Dataset(f"letters-{seed}", tuple(Example(t, t, i % 2, t) for i, t in rows))


def test_a_probe_goes_stale_where_what_it_reads_moved() -> None:
    before, after = load(small_checkpoint()), _with_letters_swapped()
    train, test = _letters(40, 0), _letters(30, 1)
    options: dict[str, Any] = {"hook_name": "blocks.0.hook_resid_pre", "max_tokens": 16}
    same = staleness(before, before, train, test, **options)
    assert same.before == same.after == same.refitted == 1
    assert same.difference == same.low == same.high == 0
    assert not same.is_stale
    moved = staleness(before, after, train, test, **options)
    assert (moved.before, moved.refitted) == (1, 1)
    assert moved.after < 0.1
    assert moved.is_stale
    with pytest.raises(LeakError):
        staleness(before, after, train, train, **options)


def test_models_of_two_shapes_are_refused(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    checkpoint = small_checkpoint()
    config: ModelConfig = dataclasses.replace(checkpoint.config, eps=1e-3)
    other = load(dataclasses.replace(checkpoint, config=config))
    with pytest.raises(ValueError, match="different configs"):
        swap_blocks(models[0], other, ROWS)
    with pytest.raises(ValueError, match="different configs"):
        movement(models[0], other, ["a"])
    with pytest.raises(ValueError, match="no prompts"):
        movement(models[0], models[0], [])
