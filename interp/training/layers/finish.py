"""From a run's weights to transcoders of the activations as the model has them.

Shapes: L layers, F features, d d_model; n the layers that a layer's features write to.
"""

from __future__ import annotations

from typing import Any

import torch

from ...dictionaries import (
    CrossLayerConfig,
    CrossLayerTranscoder,
    Dictionary,
    DictionaryConfig,
)
from ..parameters import Parameters
from .calibration import Calibration
from .config import LayersTrainConfig

_ARCHITECTURES = {"topk": "topk_transcoder", "jumprelu": "jumprelu_transcoder"}


def to_dictionaries(
    config: LayersTrainConfig,
    layers: list[Parameters],
    b_dec: torch.Tensor,
    scales: Calibration,
    metadata: dict[str, Any],
) -> dict[str, Dictionary]:
    """Returns per-layer transcoders by the hook that each reads, the scaling folded in.

    Activations are the run's; W_enc takes the factor of the input, decoder and b_dec that of the
    output.
    """
    found = {}
    for i, p in enumerate(layers):
        hook = f"blocks.{i}.{config.hook_in}"
        d = b_dec.shape[1]
        cfg = DictionaryConfig(
            architecture=_ARCHITECTURES[config.activation],
            d_in=d,
            d_sae=config.d_sae,
            d_out=d,
            k=config.k if config.activation == "topk" else None,
            hook_name=hook,
            hook_name_out=f"blocks.{i}.{config.hook_out}",
            apply_b_dec_to_input=False,
            metadata=metadata,
        )
        tensors = {
            "W_enc": (p["W_enc"] * scales.x_scale[i]).T.contiguous(),
            "b_enc": p["b_enc"].clone(),
            "W_dec": p["W_dec"] / scales.y_scale[i],
            "b_dec": b_dec[i] / scales.y_scale[i],
        }
        if config.activation == "jumprelu":
            tensors["threshold"] = p["threshold"].clone()
        found[hook] = Dictionary(cfg, tensors)
    return found


def to_cross_layer(
    config: LayersTrainConfig,
    layers: list[Parameters],
    b_dec: torch.Tensor,
    scales: Calibration,
    model_name: str,
    metadata: dict[str, Any],
) -> CrossLayerTranscoder:
    """Returns the cross-layer transcoder, the scaling folded in; layers out of reach get 0."""
    n_layers, d = b_dec.shape
    cfg = CrossLayerConfig(
        n_layers=n_layers,
        d_model=d,
        d_sae=config.d_sae,
        activation=config.activation,
        k=config.k if config.activation == "topk" else None,
        feature_input_hook=config.hook_in,
        feature_output_hook=config.hook_out,
        model_name=model_name,
        metadata=metadata,
    )
    tensors: dict[str, torch.Tensor] = {}
    for i, p in enumerate(layers):
        n = config.reach(i, n_layers)
        decoder = torch.zeros(config.d_sae, n_layers - i, d, dtype=torch.float32, device="cpu")
        factors = scales.y_scale[i : i + n][None, :, None]
        torch.div(p["W_dec"].view(config.d_sae, n, d), factors, out=decoder[:, :n])
        tensors[f"W_enc_{i}"] = p["W_enc"] * scales.x_scale[i]
        tensors[f"b_enc_{i}"] = p["b_enc"].clone()
        tensors[f"W_dec_{i}"] = decoder
        tensors[f"b_dec_{i}"] = b_dec[i] / scales.y_scale[i]
        if config.activation == "jumprelu":
            tensors[f"threshold_{i}"] = p["threshold"].clone()
    return CrossLayerTranscoder(cfg, tensors)
