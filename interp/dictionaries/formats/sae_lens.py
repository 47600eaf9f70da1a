"""Dictionaries as SAELens keeps them: a folder with cfg.json and sae_weights.safetensors.

Folders from before SAELens 6 name fields differently, and are read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ....model.weights.atomic import write_json, write_tensors
from ..config import NORMALIZATIONS, DictionaryConfig, DictionaryError
from .folding import fold_input_scale
from .reading import checked, read_json, read_shapes, read_tensors

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
FILES = (CONFIG, WEIGHTS)

_SAE_LENS_VERSION = "6.54.12"
_SCALED = "expected_average_only_in"
_RENAMED = {"hook_point": "hook_name", "activation_fn": "activation_fn_str"}
"""What fields were called before SAELens 6."""
_FLAT_METADATA = ("model_name", "context_size", "prepend_bos", "dataset_path", "neuronpedia_id")
"""Metadata that stood beside the other fields then."""
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def save_folder(cfg: DictionaryConfig, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes the folder; the config appears last, so one without it is incomplete.

    Raises OSError where it cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    description = _to_json(cfg, tensors["W_enc"].dtype)
    write_tensors(path / WEIGHTS, {n: x.detach().contiguous() for n, x in tensors.items()})
    write_json(path / CONFIG, description)


def read_folder(path: Path) -> tuple[DictionaryConfig, dict[str, torch.Tensor]]:
    """Reads a folder that `save_folder` or SAELens wrote.

    Raises DictionaryError for a file that is damaged, or a dictionary that is not supported.
    """
    found = read_json(path / CONFIG)
    config = config_from_json(found)
    if (scale := _input_scale(found)) is None:
        return config, _read_weights(path / WEIGHTS, config)
    return config, fold_input_scale(_read_weights(path / WEIGHTS, config), scale)


def config_from_json(found: Mapping[str, Any]) -> DictionaryConfig:
    """Reads cfg.json. Raises DictionaryError naming the field that does not fit."""
    found = {_RENAMED.get(name, name): value for name, value in found.items()}
    if found.get("reshape_activations", "none") not in ("none", "hook_z", None):
        raise DictionaryError(f"reshape_activations = {found['reshape_activations']!r}: unknown")
    metadata = found.get("metadata") or {n: found[n] for n in _FLAT_METADATA if n in found}
    if not isinstance(metadata, dict):
        raise DictionaryError("metadata: expected an object")
    hook_name = metadata.get("hook_name") or found.get("hook_name")
    if not isinstance(hook_name, str):
        raise DictionaryError("cfg.json names no hook (metadata.hook_name)")
    architecture, k = _architecture(found)
    d_in = found.get("d_in", 0)
    out = metadata.get("hook_name_out") if architecture.endswith("transcoder") else None
    return DictionaryConfig(
        architecture=architecture,
        d_in=d_in,
        d_sae=found.get("d_sae", 0),
        d_out=found.get("d_out", d_in) if architecture.endswith("transcoder") else d_in,
        k=k,
        hook_name=hook_name,
        hook_name_out=out if isinstance(out, str) else hook_name,
        apply_b_dec_to_input=bool(found.get("apply_b_dec_to_input", True)),
        rescale_acts_by_decoder_norm=bool(found.get("rescale_acts_by_decoder_norm", False)),
        normalize_activations=_normalization(found),
        metadata=metadata,
    )


def _architecture(found: Mapping[str, Any]) -> tuple[str, Any]:
    """The architecture and its k."""
    name, k = found.get("architecture", "standard"), found.get("k")
    if not isinstance(name, str):
        raise DictionaryError(f"architecture = {name!r}: expected a name")
    options = found.get("activation_fn_kwargs")
    if found.get("activation_fn_str") == "topk" and isinstance(options, dict):
        return "topk", options.get("k", k)
    return name, k


def _normalization(found: Mapping[str, Any]) -> str:
    """What is done to every row; a fixed factor is folded into the weights, and is nothing then."""
    name = found.get("normalize_activations", "none")
    if name in (None, False, True, _SCALED):
        if name in (True, _SCALED) and found.get("norm_scaling_factor") is None:
            raise DictionaryError(
                f"normalize_activations = {name!r}, but cfg.json has no norm_scaling_factor, which "
                "is sqrt(d_in) / the mean norm of the rows: add it, or fold it in with SAELens "
                "(sae.fold_activation_norm_scaling_factor)"
            )
        return "none"
    if name not in NORMALIZATIONS:
        raise DictionaryError(
            f"normalize_activations = {name!r}: its numbers are not in the folder; let SAELens "
            f"fold it in. Read are {', '.join(NORMALIZATIONS)}, {_SCALED}"
        )
    return str(name)


def _input_scale(found: Mapping[str, Any]) -> float | None:
    """The factor that rows were scaled by in training; None for none."""
    if found.get("normalize_activations") not in (True, _SCALED):
        return None
    value = found["norm_scaling_factor"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-30 < value < 1e30:
        raise DictionaryError(f"norm_scaling_factor = {value!r}: expected a positive number")
    return float(value)


def _to_json(cfg: DictionaryConfig, dtype: torch.dtype) -> dict[str, Any]:
    found: dict[str, Any] = {
        "architecture": cfg.architecture,
        "d_in": cfg.d_in,
        "d_sae": cfg.d_sae,
        "dtype": _DTYPES[dtype],
        "device": "cpu",
        "apply_b_dec_to_input": cfg.apply_b_dec_to_input,
        "normalize_activations": cfg.normalize_activations,
        "reshape_activations": "hook_z" if cfg.hook_name.endswith("attn.hook_z") else "none",
    }
    if cfg.is_transcoder:
        found["d_out"] = cfg.d_out
    if cfg.selects_top_k:
        found["k"] = cfg.k
        found["rescale_acts_by_decoder_norm"] = cfg.rescale_acts_by_decoder_norm
    versions = {
        "sae_lens_version": _SAE_LENS_VERSION,
        "sae_lens_training_version": None,
    }
    hooks = {"hook_name": cfg.hook_name}
    if cfg.is_transcoder:
        hooks["hook_name_out"] = cfg.hook_name_out
    found["metadata"] = {**versions, **cfg.metadata, **hooks}
    json.dumps(found)  # what cannot be written raises before a file is touched
    return found


def _read_weights(path: Path, config: DictionaryConfig) -> dict[str, torch.Tensor]:
    """The tensors of an architecture; shapes are checked before anything large is read."""
    expected = config.tensor_shapes()
    found = read_shapes(path)
    old = "log_threshold" in found and "threshold" in expected
    empty = {
        name: torch.empty(shape, device="meta", dtype=torch.float32)
        for name, shape in found.items()
    }
    if old:
        empty["threshold"] = empty.pop("log_threshold")
    checked(empty, expected, f"{path.name} of {config.architecture}")
    tensors = read_tensors(path)
    if old:
        tensors["threshold"] = tensors.pop("log_threshold").double().exp().float()
    return tensors
