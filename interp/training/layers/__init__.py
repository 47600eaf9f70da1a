"""Transcoders of every layer at once: per-layer sets and cross-layer transcoders."""

from .config import LayersTrainConfig
from .train import LayersTrainResult, train_layers

__all__ = ["LayersTrainConfig", "LayersTrainResult", "train_layers"]
