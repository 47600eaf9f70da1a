"""The part of a model that continuous batching needs."""

from __future__ import annotations

from typing import Protocol

import torch

from ..cache.kv_cache import KVCache
from ..config import ModelConfig
from ..hooks.captures import Captures


class ReplayingModel(Protocol):
    """The part of a model that runs as far as hooks ask for."""

    config: ModelConfig

    def forward_captures(
        self, tokens: torch.Tensor, kv_cache: KVCache, captures: Captures
    ) -> None: ...


class BatchedModel(ReplayingModel, Protocol):
    """The part of a model that a batch runs."""

    def forward_last_slice(
        self,
        tokens: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        captures: Captures | None = None,
    ) -> torch.Tensor: ...
