"""Transcoders of random weights for every layer of random models."""

from __future__ import annotations

import torch
from bitlens.interp.dictionaries import CrossLayerConfig, CrossLayerTranscoder, Dictionary
from bitlens.model.transformer import HookedTransformer
from support.random_dictionaries import random_dictionary

PLACES = (
    ("hook_mlp_in", "hook_mlp_out"),
    ("hook_resid_mid", "mlp.hook_out"),
    ("ln2.hook_normalized", "hook_mlp_out"),
    ("mlp.hook_in", "mlp.hook_out"),
)
"""Pairs of hooks that transcoders read and write."""

ARCHITECTURES = (
    "topk_transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "topk_skip_transcoder",
)


def random_set(
    model: HookedTransformer,
    read: str = "mlp.hook_in",
    write: str = "hook_mlp_out",
    *,
    layers: tuple[int, ...] | None = None,
    architectures: tuple[str, ...] = ARCHITECTURES,
    seed: int = 0,
) -> list[Dictionary]:
    """Returns a transcoder of some layers, or all, the architectures taking turns."""
    chosen = range(model.config.n_layers) if layers is None else layers
    return [
        random_dictionary(
            model,
            f"blocks.{i}.{read}",
            f"blocks.{i}.{write}",
            architectures[(i + seed) % len(architectures)],
            seed=seed + i,
        )
        for i in chosen
    ]


def random_cross_layer(
    model: HookedTransformer,
    read: str = "mlp.hook_in",
    activation: str = "topk",
    *,
    k: int = 6,
    d_sae: int = 48,
    seed: int = 0,
    write: str = "hook_mlp_out",
) -> CrossLayerTranscoder:
    """Returns a cross-layer transcoder, several of whose features are active in a row."""
    cfg = CrossLayerConfig(
        n_layers=model.config.n_layers,
        d_model=model.config.d_model,
        d_sae=d_sae,
        activation=activation,
        k=k if activation == "topk" else None,
        feature_input_hook=read,
        feature_output_hook=write,
    )
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator) * shape[-1] ** -0.5
        for name, shape in cfg.tensor_shapes().items()
    }
    for name in tensors:
        if name.startswith("threshold"):
            tensors[name] = tensors[name].abs()
    return CrossLayerTranscoder(cfg, tensors)
