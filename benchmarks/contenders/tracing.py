"""An attribution graph with random transcoders of every layer: its seconds, and its memory."""

from __future__ import annotations

import resource
import time

import torch

from ... import load, set_num_threads
from ...interp import trace
from ...interp.dictionaries import Dictionary, DictionaryConfig


class Tracing:
    """A model with top-k transcoders of every layer."""

    def __init__(self, model: str, threads: int, d_sae: int, k: int) -> None:
        torch.set_num_threads(threads)
        self._model = load(model)
        set_num_threads(threads)
        self._transcoders = [
            self._random(layer, d_sae, k) for layer in range(self._model.config.n_layers)
        ]

    def trace(self, n_tokens: int, max_feature_nodes: int) -> dict[str, float]:
        """Seconds of a graph, its features, and the GB that the process had at most."""
        g = torch.Generator().manual_seed(n_tokens)
        tokens = torch.randint(0, self._model.config.d_vocab, (1, n_tokens), generator=g)
        began = time.perf_counter()
        graph = trace(self._model, tokens, self._transcoders, max_feature_nodes=max_feature_nodes)
        return {
            "seconds": time.perf_counter() - began,
            "features": float(sum(node.kind == "feature" for node in graph.nodes)),
            "GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }

    def _random(self, layer: int, d_sae: int, k: int) -> Dictionary:
        d = self._model.config.d_model
        cfg = DictionaryConfig(
            architecture="topk_transcoder",
            d_in=d,
            d_sae=d_sae,
            d_out=d,
            hook_name=f"blocks.{layer}.mlp.hook_in",
            hook_name_out=f"blocks.{layer}.hook_mlp_out",
            k=k,
            apply_b_dec_to_input=False,
        )
        g = torch.Generator().manual_seed(layer)
        tensors = {
            name: torch.randn(shape, generator=g) * shape[0] ** -0.5
            for name, shape in cfg.tensor_shapes().items()
        }
        return Dictionary(cfg, tensors)
