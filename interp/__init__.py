"""Reads a model: dictionaries of features, circuits, probes, monitors.

    from bitlens.interp import load_dictionary, splice
    sae = load_dictionary("smollm2-135m-instruct/blocks.15.hook_resid_post", model=model)
    with splice(model, sae) as spliced:
        logits, cache = spliced.run_with_cache("Paris is the capital of")

Imports model and precision, never the reverse.
"""

from . import show
from .circuits import Graph, trace
from .dictionaries import (
    Dictionary,
    DictionaryConfig,
    DictionaryError,
    Features,
    load_dictionaries,
    load_dictionary,
)
from .evaluation import EvalResult, LayersEvalResult, compare, evaluate, evaluate_layers
from .examples import collect_examples, load_examples
from .pages import explore, feature_page, graph_page
from .prompt_features import prompt_features
from .splicing import Edit, splice
from .stability import StabilityResult, stability
from .training import TrainConfig, TrainingDiverged, TrainResult, train, train_all
from .training.layers import LayersTrainConfig, LayersTrainResult, train_layers

__all__ = [
    "Dictionary",
    "DictionaryConfig",
    "DictionaryError",
    "Edit",
    "EvalResult",
    "Features",
    "Graph",
    "LayersEvalResult",
    "LayersTrainConfig",
    "LayersTrainResult",
    "StabilityResult",
    "TrainConfig",
    "TrainResult",
    "TrainingDiverged",
    "collect_examples",
    "compare",
    "evaluate",
    "evaluate_layers",
    "explore",
    "feature_page",
    "graph_page",
    "load_dictionaries",
    "load_dictionary",
    "load_examples",
    "prompt_features",
    "show",
    "splice",
    "stability",
    "trace",
    "train",
    "train_all",
    "train_layers",
]
