"""Judges a dictionary: its reconstructions, the model's loss with them, its living features."""

from .compare import Comparison, compare
from .control import random_dictionary
from .evaluate import Progress, evaluate
from .evaluate_layers import LayersEvalResult, evaluate_layers
from .neighbours import Neighbours, nearest_features
from .result import EvalResult

__all__ = [
    "Comparison",
    "EvalResult",
    "LayersEvalResult",
    "Neighbours",
    "Progress",
    "compare",
    "evaluate",
    "evaluate_layers",
    "nearest_features",
    "random_dictionary",
]
