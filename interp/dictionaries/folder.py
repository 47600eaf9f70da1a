"""Dictionaries as SAELens keeps them: a folder with cfg.json and sae_weights.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...model.sources.json_file import read_object
from ...model.weights.checkpoint import CheckpointError
from ..activations.atomic import write_json, write_tensors
from .config import DictionaryConfig, DictionaryError

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"

_SAE_LENS_VERSION = "6.54.12"
_NORMALIZED = (
    "normalize_activations = {!r}: fold the normalisation into the weights first "
    "(SAELens: sae.fold_activation_norm_scaling_factor), or train with bitlens, which does"
)
_PICKLES = (".pt", ".pth", ".pkl", ".bin")
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
    """Reads a folder that `save_folder` or SAELens 6 wrote.

    Raises:
        FileNotFoundError: no such folder, or no cfg.json in it.
        DictionaryError: a file that is damaged, or a dictionary that is not supported.
    """
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            pickles = [p.name for p in path.glob("*") if p.suffix in _PICKLES]
            hint = (
                f"; it holds {pickles[0]}, a pickle, which runs code when it is read: convert it "
                "with the library that wrote it, to safetensors"
                if pickles
                else ""
            )
            raise FileNotFoundError(f"{path}: there is no {name}{hint}")
    try:
        found = read_object(path / CONFIG)
    except CheckpointError as error:
        raise DictionaryError(str(error)) from error
    try:
        config = config_from_json(found)
        return config, _read_tensors(path / WEIGHTS, config)
    except DictionaryError as error:
        raise DictionaryError(f"{path}: {error}") from error


def config_from_json(found: Mapping[str, Any]) -> DictionaryConfig:
    """Reads SAELens 6's cfg.json. Raises DictionaryError naming the field that does not fit."""
    normalize = found.get("normalize_activations", "none")
    if normalize not in ("none", None):
        raise DictionaryError(_NORMALIZED.format(normalize))
    if found.get("reshape_activations", "none") not in ("none", "hook_z", None):
        raise DictionaryError(f"reshape_activations = {found['reshape_activations']!r}: unknown")
    metadata = found.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise DictionaryError("metadata: expected an object")
    hook_name = metadata.get("hook_name") or found.get("hook_name")
    if not isinstance(hook_name, str):
        raise DictionaryError("cfg.json names no hook (metadata.hook_name)")
    architecture = found.get("architecture", "standard")
    if not isinstance(architecture, str):
        raise DictionaryError(f"architecture = {architecture!r}: expected a name")
    d_in = found.get("d_in", 0)
    out = metadata.get("hook_name_out") if architecture.endswith("transcoder") else None
    return DictionaryConfig(
        architecture=architecture,
        d_in=d_in,
        d_sae=found.get("d_sae", 0),
        d_out=found.get("d_out", d_in) if architecture.endswith("transcoder") else d_in,
        k=found.get("k"),
        hook_name=hook_name,
        hook_name_out=out if isinstance(out, str) else hook_name,
        apply_b_dec_to_input=bool(found.get("apply_b_dec_to_input", True)),
        rescale_acts_by_decoder_norm=bool(found.get("rescale_acts_by_decoder_norm", False)),
        metadata=metadata,
    )


def _to_json(cfg: DictionaryConfig, dtype: torch.dtype) -> dict[str, Any]:
    found: dict[str, Any] = {
        "architecture": cfg.architecture,
        "d_in": cfg.d_in,
        "d_sae": cfg.d_sae,
        "dtype": _DTYPES[dtype],
        "device": "cpu",
        "apply_b_dec_to_input": cfg.apply_b_dec_to_input,
        "normalize_activations": "none",
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


def _read_tensors(path: Path, config: DictionaryConfig) -> dict[str, torch.Tensor]:
    expected = config.tensor_shapes()
    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if missing := expected.keys() - names:
                raise DictionaryError(f"{path.name} has no tensor {min(missing)!r}")
            if extra := names - expected.keys():
                raise DictionaryError(
                    f"{path.name} holds {min(extra)!r}, which {config.architecture} has no use for"
                )
            for name, shape in expected.items():
                found = tuple(file.get_slice(name).get_shape())
                if found != shape:
                    raise DictionaryError(
                        f"{name}: expected shape {list(shape)}, found {list(found)}"
                    )
                tensors[name] = file.get_tensor(name).clone()
    except SafetensorError as error:
        raise DictionaryError(f"{path.name}: {error}") from error
    return tensors
