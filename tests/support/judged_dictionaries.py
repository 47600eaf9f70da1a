"""Dictionaries of random weights, and the small model and text that they are judged on."""

from __future__ import annotations

from typing import Any

import torch
from bitlens.interp.activations import Packing
from bitlens.interp.dictionaries import Dictionary, DictionaryConfig
from bitlens.model.transformer import HookedTransformer
from support.random_models import byte_tokenizer, random_checkpoint

CHECKPOINT = random_checkpoint("llama", tokenizer=byte_tokenizer())
D = CHECKPOINT.config.d_model
HOOK = "blocks.1.hook_resid_post"
MLP_IN, MLP_OUT = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"
PACKING = Packing(context_size=24, min_tokens=3, prepend_bos=False)
TEXT = [
    "To be, or not to be, that is the question:",
    "Whether 'tis nobler in the mind to suffer",
    "The slings and arrows of outrageous fortune,",
    "Or to take arms against a sea of troubles",
    "And by opposing end them.",
]
OPTIONS: dict[str, Any] = {"text": TEXT, "split": "all", "packing": PACKING}


def draw(*shape: int, seed: int) -> torch.Tensor:
    """Normal numbers, the same for a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dictionary(
    architecture: str = "topk",
    d_sae: int = 96,
    k: int = 8,
    seed: int = 1,
    read: str = HOOK,
    written: str | None = None,
    **metadata: Any,
) -> Dictionary:
    """Random weights."""
    config = DictionaryConfig(
        architecture=architecture,
        d_in=D,
        d_sae=d_sae,
        d_out=D,
        k=k if architecture.startswith("topk") else None,
        hook_name=read,
        hook_name_out=written or read,
        apply_b_dec_to_input=written is None,
        metadata=metadata,
    )
    tensors = {
        name: draw(*shape, seed=seed + i) * shape[-1] ** -0.5
        for i, (name, shape) in enumerate(config.tensor_shapes().items())
    }
    if "threshold" in tensors:
        tensors["threshold"] = tensors["threshold"].abs()
    return Dictionary(config, tensors)


def sequences(model: HookedTransformer) -> list[torch.Tensor]:
    """The text's sequences of ids, [1, P] each."""
    assert model.tokenizer is not None
    return [torch.tensor([ids]) for ids in PACKING.sequences(TEXT, model.tokenizer)]


def rows_of(model: HookedTransformer, name: str) -> torch.Tensor:
    """All rows of the text, fp64, run one sequence at a time."""
    caches = [model.run_with_cache(ids, name)[1][name] for ids in sequences(model)]
    return torch.cat([x[0].flatten(1) for x in caches])
