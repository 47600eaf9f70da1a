"""Weights under training as a model that others can load."""

from __future__ import annotations

from pathlib import Path

from ..sources.huggingface_writer import write_directory
from ..transformer import HookedTransformer


def export(model: HookedTransformer, folder: str | Path) -> Path:
    """Writes the weights as they are, in fp32, as a Hugging Face directory; returns it.

    `bitlens.load` of it has the model's fingerprint, and transformers loads it. Low-rank adapters
    are added to their matrices, which is another model (`model.trained.checkpoint()`).

    Raises:
        ValueError: a model without `trainable`.
        ConfigError: one that config.json cannot say.
        OSError: the disk is full.
    """
    if model.trained is None:
        raise ValueError('export: load the model with trainable="full" or "lora"')
    return write_directory(model.trained.checkpoint(), folder)
