"""Small training runs: a text, a model that speaks, and a process that may be killed."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import bitlens
from bitlens.interp.activations import harvesting
from bitlens.interp.training import TrainConfig, train
from bitlens.interp.training.layers import LayersTrainConfig, train_layers
from bitlens.model.transformer import HookedTransformer
from support.speaking_llama import write_speaking_llama

HOOK = "blocks.0.hook_resid_post"
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "that",
    "no",
    "dog",
    "ran",
    "after",
    "it",
    "so",
    "all",
    "was",
    "well",
    "in",
    "town",
]


def documents(n: int = 200, seed: int = 0) -> list[str]:
    """Returns texts of 20 to 60 words, all different."""
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=source.randint(20, 60))) for _ in range(n)]


def speaking_model(folder: Path, dtype: str = "fp32", **changes: Any) -> HookedTransformer:
    """Returns a random Llama of two layers, d_model 48, context 96; `changes` are of its config."""
    if not (folder / "config.json").exists():
        write_speaking_llama(folder, **changes)
    return bitlens.load(folder, dtype=dtype)


def config(**changes: Any) -> TrainConfig:
    """Returns a run of 40 steps that takes about a second."""
    values: dict[str, Any] = {
        "architecture": "topk",
        "hook_name": HOOK,
        "d_sae": 96,
        "k": 4,
        "n_tokens": 40 * 128,
        "unique_tokens": 4000,
        "batch_size": 128,
        "context_size": 64,
        "dead_after_tokens": 1000,
        "checkpoint_every": 7,
        "log_every": 5,
        **changes,
    }
    return TrainConfig(**values)


def layers_config(**changes: Any) -> LayersTrainConfig:
    """Returns a run over every layer, of 20 steps."""
    values: dict[str, Any] = {
        "d_sae": 96,
        "k": 4,
        "n_tokens": 20 * 128,
        "batch_tokens": 128,
        "context_size": 64,
        "checkpoint_every": 7,
        **changes,
    }
    return LayersTrainConfig(**values)


def small_shards() -> None:
    """Makes a harvest of these few tokens several shards long."""
    harvesting.BATCH_TOKENS, harvesting.SHARD_TOKENS = 256, 1024


if __name__ == "__main__":
    small_shards()
    if sys.argv[1] == "layers":
        train_layers(
            speaking_model(Path(sys.argv[2])),
            layers_config(n_tokens=30 * 128, checkpoint_every=2),
            text=documents(),
            output=sys.argv[3],
        )
        sys.exit()
    model_folder, output, steps = sys.argv[1:]
    train(
        speaking_model(Path(model_folder)),
        config(n_tokens=int(steps) * 128, checkpoint_every=3, log_every=1),
        text=documents(),
        output=output,
        keep_harvest=True,
        progress=lambda stage, done, total, line: print(f"{stage}-{done}", flush=True),
    )
