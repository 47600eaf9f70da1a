"""Where weights come from: an alias, a GGUF file, a Hugging Face directory, the hub, or memory."""

from .alias import ALIASES, FetchError, cached_path, fetch
from .resolve import locate, open_checkpoint

__all__ = ["ALIASES", "FetchError", "cached_path", "fetch", "locate", "open_checkpoint"]
