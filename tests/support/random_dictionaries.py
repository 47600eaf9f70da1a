"""Dictionaries of random weights, for the hooks of random models."""

from __future__ import annotations

import torch
from bitlens.interp.dictionaries import Dictionary, DictionaryConfig
from bitlens.model.hooks.widths import hook_width
from bitlens.model.transformer import HookedTransformer

D_SAE = 48


def random_dictionary(
    model: HookedTransformer,
    hook_name: str,
    hook_name_out: str | None = None,
    architecture: str = "topk",
    *,
    k: int = 6,
    seed: int = 0,
    metadata: dict[str, object] | None = None,
) -> Dictionary:
    """Returns a dictionary of D_SAE features, several of them active in a row."""
    out = hook_name_out or hook_name
    cfg = DictionaryConfig(
        architecture=architecture,
        d_in=hook_width(model.config, hook_name),
        d_sae=D_SAE,
        d_out=hook_width(model.config, out),
        hook_name=hook_name,
        hook_name_out=out,
        k=k if "topk" in architecture else None,
        apply_b_dec_to_input=out == hook_name,
        metadata=metadata or {},
    )
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator) * shape[0] ** -0.5
        for name, shape in cfg.tensor_shapes().items()
    }
    if cfg.has_threshold:
        tensors["threshold"] = tensors["threshold"].abs()
    return Dictionary(cfg, tensors)
