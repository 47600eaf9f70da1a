"""Tiny models that train in a second, and what they are trained on."""

from __future__ import annotations

from typing import Any

from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint
from support.random_models import CONFIGS, MemoryReader, byte_tokenizer, random_tensors

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def small_checkpoint(architecture: str = "llama", chat_template: str | None = None) -> Checkpoint:
    """A model of random weights whose first answers are nearly uniform over bytes."""
    config = CONFIGS[architecture]
    tensors = random_tensors(config)
    for name in ("embed.weight", "unembed.weight"):
        if name in tensors:
            tensors[name] = tensors[name] * 0.1
    tokenizer = byte_tokenizer(chat_template)
    return Checkpoint(config, tokenizer, f"small {architecture}", MemoryReader(tensors))


def small_model(architecture: str = "llama", **options: Any) -> HookedTransformer:
    """A model of these that can be trained."""
    return load(small_checkpoint(architecture), **{"trainable": "full", **options})


SUMS = [{"prompt": f"{i}+{j}=", "completion": str(i + j)} for i in range(4) for j in range(5)]
PAIRS = [
    {"prompt": row["prompt"], "chosen": row["completion"], "rejected": row["completion"] * 3}
    for row in SUMS
]
