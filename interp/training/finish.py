"""From a run's weights to a dictionary of the activations as the model has them."""

from __future__ import annotations

from typing import Any

import torch

from ..dictionaries import Dictionary, DictionaryConfig
from .config import TrainConfig
from .parameters import Parameters

_SAVED_AS = {"batchtopk": "jumprelu", "matryoshka_batchtopk": "jumprelu"}


def to_dictionary(
    config: TrainConfig,
    p: Parameters,
    state: dict[str, float],
    x_scale: float,
    y_scale: float,
    metadata: dict[str, Any],
) -> Dictionary:
    """Returns the dictionary with the scaling folded into its weights.

    The run saw s x for every row x of an SAE. Pre-activations of the folded weights are those of
    the run divided by s, and so are activations, thresholds and reconstructions; W_dec keeps rows
    of norm 1. A transcoder's input and output have factors of their own, s and t: its activations
    are those of the run divided by t, so W_enc is multiplied by s / t.
    """
    architecture = _SAVED_AS.get(config.architecture, config.architecture)
    tensors: dict[str, torch.Tensor] = {
        "W_enc": (p["W_enc"] * (x_scale / y_scale)).T.contiguous(),
        "W_dec": p["W_dec"].clone(),
        "b_dec": p["b_dec"] / y_scale,
    }
    if architecture == "gated":
        tensors |= {name: p[name] / y_scale for name in ("b_gate", "b_mag")}
        tensors["r_mag"] = p["r_mag"].clone()
    else:
        tensors["b_enc"] = p["b_enc"] / y_scale
    if architecture.startswith("jumprelu"):
        threshold = p.values.get("threshold")
        if threshold is None:
            threshold = torch.full(
                (config.d_sae,), state["threshold"], dtype=torch.float32, device="cpu"
            )
        tensors["threshold"] = threshold / y_scale
    if "W_skip" in p.values:
        tensors["W_skip"] = p["W_skip"] * (x_scale / y_scale)
    d_sae, d_out = p["W_dec"].shape
    cfg = DictionaryConfig(
        architecture=architecture,
        d_in=p["W_enc"].shape[1],
        d_sae=d_sae,
        d_out=d_out,
        k=config.k if architecture.startswith("topk") else None,
        hook_name=config.hook_name,
        hook_name_out=config.target_hook,
        apply_b_dec_to_input=not config.is_transcoder,
        metadata={**metadata, "training_architecture": config.architecture},
    )
    return Dictionary(cfg, tensors)
