"""Llama Scope (He et al., 2024): JumpReLU dictionaries of Llama 3.1, one threshold for all.

A folder holds `hyperparams.json` and `checkpoints/final.safetensors`. Rows are divided by their
average norm over the square root of d; that factor is folded into the weights, as SAELens does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from ..config import DictionaryConfig, DictionaryError
from .folding import fold_input_scale
from .reading import checked, matrix_shape, read_json, read_tensors

FILES = ("hyperparams.json", "checkpoints/final.safetensors")


def read_folder(path: Path) -> tuple[DictionaryConfig, dict[str, torch.Tensor]]:
    """Reads a folder of Llama Scope. Raises DictionaryError."""
    told = read_json(path / FILES[0])
    found = read_tensors(path / FILES[1])
    d_sae, d_in = matrix_shape(found, "encoder.weight", FILES[1])
    checked(
        found,
        {
            "encoder.weight": (d_sae, d_in),
            "encoder.bias": (d_sae,),
            "decoder.weight": (d_in, d_sae),
            "decoder.bias": (d_in,),
        },
        FILES[1],
    )
    norms = told.get("dataset_average_activation_norm")
    average = _positive(norms.get("in") if isinstance(norms, dict) else None, "average norm in")
    scale = math.sqrt(d_in) / average
    threshold = _positive(told.get("jump_relu_threshold"), "jump_relu_threshold") * scale
    hook = told.get("hook_point_in")
    if not isinstance(hook, str) or told.get("hook_point_out", hook) != hook:
        raise DictionaryError(f"hyperparams.json: hook_point_in = {hook!r}, or another one out")
    cfg = DictionaryConfig(
        architecture="jumprelu",
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_in,
        hook_name=hook,
        hook_name_out=hook,
        apply_b_dec_to_input=False,
        metadata={"model_name": "meta-llama/Llama-3.1-8B", "context_size": 1024},
    )
    tensors = {
        "W_enc": found["encoder.weight"].T.contiguous(),
        "W_dec": found["decoder.weight"].T.contiguous(),
        "b_enc": found["encoder.bias"],
        "b_dec": found["decoder.bias"],
        "threshold": torch.full((d_sae,), threshold, dtype=torch.float32, device="cpu"),
    }
    return cfg, fold_input_scale(tensors, scale)


def _positive(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DictionaryError(f"hyperparams.json: {what} = {value!r}: expected a number")
    if not 1e-9 < value < 1e9:
        raise DictionaryError(f"hyperparams.json: {what} = {value!r}: expected one in 1e-9 to 1e9")
    return float(value)
