"""Who is measured: a class a contender, whose methods are tasks that return named numbers."""

from __future__ import annotations

import importlib
from typing import Any

_CONTENDERS = {
    "bitlens": ("bitlens_model", "BitlensModel"),
    "watched bitlens": ("watched_model", "WatchedModel"),
    "bitlens kernels": ("bitlens_kernels", "BitlensKernels"),
    "torch": ("torch_kernels", "TorchKernels"),
    "transformers": ("huggingface", "HuggingFace"),
    "llama.cpp": ("llama_cpp_model", "LlamaCpp"),
    "TransformerLens": ("transformer_lens_model", "TransformerLens"),
    "bandwidth": ("bandwidth", "Bandwidth"),
    "bitlens sampler": ("samplers", "BitlensSampler"),
    "torch sampler": ("samplers", "TorchSampler"),
    "bitlens training": ("dictionary_training", "BitlensTraining"),
    "SAELens training": ("dictionary_training", "SAELensTraining"),
    "bitlens dictionary": ("dictionary_use", "BitlensDictionary"),
    "SAELens dictionary": ("dictionary_use", "SAELensDictionary"),
    "dictionary memory": ("dictionary_memory", "DictionaryMemory"),
    "bitlens layer training": ("layer_training", "BitlensLayers"),
    "torch layer training": ("layer_training", "TorchLayers"),
    "tracing": ("tracing", "Tracing"),
    "harvesting": ("harvesting", "Harvesting"),
    "bitlens serving": ("serving", "BitlensServing"),
    "bitlens over HTTP": ("http", "BitlensHttp"),
    "transformers serving": ("serving", "TransformersServing"),
    "llama.cpp server": ("llama_cpp_server", "LlamaCppServer"),
    "llama.cpp sampler": ("llama_cpp_samplers", "LlamaCppSampler"),
}


def make(name: str, **options: Any) -> Any:
    """The contender of that name; imports only what it needs."""
    module, cls = _CONTENDERS[name]
    return getattr(importlib.import_module(f".{module}", __name__), cls)(**options)
