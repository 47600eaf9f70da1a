"""The weights that a transformers model in memory computes with, as a Checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from ..sources.transformers_model import StateDictReader
from ..weights.checkpoint import Checkpoint
from .transformers_structure import causal_model, family_config, modules_by_address, weights_of


def weights_in_memory(model: Any, name: str) -> Checkpoint:
    """Returns them under bitlens's names; they are read when asked for.

    What an adapter adds to a linear has the name of its own parameter after the linear's address.
    Raises TypeError and ValueError as `causal_model`, `modules_by_address` and `family_config` do.
    """
    inner = causal_model(model)
    config = family_config(inner)
    tensors: dict[str, torch.Tensor] = {}
    for address, module in modules_by_address(inner).items():
        base = weights_of(address, module)
        own = {id(x) for x in base.parameters(recurse=False)}
        for kind, x in base.named_parameters(recurse=False):
            tensors[f"{address}.{kind}"] = x.data
        for kind, x in module.named_parameters():
            if id(x) not in own:
                tensors[f"{address}.{kind}"] = x.data
    head, embedding = tensors["unembed.weight"], tensors["embed.weight"]
    if config.tie_embeddings and head.data_ptr() == embedding.data_ptr():
        del tensors["unembed.weight"]
    return Checkpoint(config, None, name, StateDictReader(tensors), volatile=True)
