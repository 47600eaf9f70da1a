"""Sparse autoencoders and transcoders: what they are, how they run, how they are kept."""

from .config import DictionaryConfig, DictionaryError
from .cross_layer import CrossLayerConfig, CrossLayerTranscoder, load_cross_layer
from .dictionary import Dictionary
from .features import Features
from .load import check_fits, check_hooks, load_dictionaries, load_dictionary

__all__ = [
    "CrossLayerConfig",
    "CrossLayerTranscoder",
    "Dictionary",
    "DictionaryConfig",
    "DictionaryError",
    "Features",
    "check_fits",
    "check_hooks",
    "load_cross_layer",
    "load_dictionaries",
    "load_dictionary",
]
