"""The transformer: weights in, activations and text out."""

from .. import threads
from . import sampling
from .cache.kv_cache import KVCache
from .config import LayerConfig, ModelConfig
from .config_error import ConfigError
from .generation import GenerateOutput
from .gradients import torch_operators  # noqa: F401  it registers more of torch.ops.bitlens
from .hooks.activation_cache import ActivationCache
from .hooks.registry import HookPoint
from .load import load
from .ops import torch_library  # it registers torch.ops.bitlens
from .transformer import HookedTransformer

threads.follow_torch()

__all__ = [
    "ActivationCache",
    "ConfigError",
    "GenerateOutput",
    "HookPoint",
    "HookedTransformer",
    "KVCache",
    "LayerConfig",
    "ModelConfig",
    "load",
    "sampling",
    "torch_library",
]
