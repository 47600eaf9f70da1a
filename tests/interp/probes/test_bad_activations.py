"""A model whose activations are no numbers gets an error from every command, and never a score."""

from __future__ import annotations

import pytest
import torch
from bitlens.interp.probes import MeanDifferenceProbe
from bitlens.interp.probes.attack import AttackConfig, attack_probe
from bitlens.interp.probes.data import Dataset, Example
from bitlens.interp.probes.protocol import ProbeConfig, evaluate_probe, train_probe
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from support.random_models import CONFIGS, MemoryReader, byte_tokenizer, random_tensors

HOOK = "blocks.0.hook_resid_post"


def loaded(scale: float) -> HookedTransformer:
    """A model whose first MLP has weights this many times as large."""
    config = CONFIGS["llama"]
    tensors = random_tensors(config)
    for name in ("up", "down"):
        tensors[f"blocks.0.mlp.{name}.weight"] *= scale
    return load(Checkpoint(config, byte_tokenizer(), "spoilt", MemoryReader(tensors)))


@pytest.fixture(scope="module")
def sound() -> HookedTransformer:
    return loaded(1.0)


def conversations() -> Dataset:
    made = [f"text {i} {'bad' if i % 2 else 'good'}" for i in range(20)]
    return Dataset("d", tuple(Example(f"{i}", t, i % 2, f"{i}") for i, t in enumerate(made)))


CONFIG = ProbeConfig(((HOOK,),), "mean_difference", aggregates=("mean",))


def test_nothing_is_trained_judged_or_attacked_with_nan(sound: HookedTransformer) -> None:
    """Finite weights so large that a product overflows; the sound twin is the control."""
    found = train_probe(sound, conversations(), CONFIG).probe
    found.metadata_.pop("text_digests")
    evaluate_probe(sound, found, conversations())
    spoilt = loaded(1e30)
    says = f"{HOOK} of spoilt holds NaN or infinity"
    with pytest.raises(ValueError, match=says):
        train_probe(spoilt, conversations(), CONFIG)
    with pytest.raises(ValueError, match=says):
        evaluate_probe(spoilt, found, conversations())
    with pytest.raises(ValueError, match=says):
        attack_probe(spoilt, found, conversations(), AttackConfig(("rot13",)))


def test_one_class_is_refused_by_training(sound: HookedTransformer) -> None:
    only = conversations().where(lambda e: e.label == 1)
    with pytest.raises(ValueError, match="one class"):
        train_probe(sound, only, CONFIG)


def test_infinite_rows_are_refused_by_a_probe() -> None:
    rows = torch.ones(4, 3)
    rows[2, 1] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinity"):
        MeanDifferenceProbe(HOOK).fit(rows, [0, 1, 0, 1])
