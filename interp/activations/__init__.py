"""Activations of a text: streamed through the model into shards, and read back in mixed batches."""

from .documents import TextSource, open_text
from .harvesting import HarvestConfig, disk_bytes, harvest
from .sequences import Packing

__all__ = ["HarvestConfig", "Packing", "TextSource", "disk_bytes", "harvest", "open_text"]
