"""circuit-tracer's transcoder sets: config.yaml, and `layer_{i}.safetensors` for each layer.

Matrices are kept feature by feature. A layer with thresholds is a JumpReLU one; for the others
config.yaml says topk and k, or relu.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ....model.weights.atomic import write_json, write_tensors
from ..config import DictionaryConfig, DictionaryError
from .flat_yaml import read_flat_yaml
from .reading import checked, matrix_shape, read_tensors

CONFIG = "config.yaml"
SET, CROSS_LAYER = "transcoder_set", "cross_layer_transcoder"
_THRESHOLD = "activation_function.threshold"
_FILE = re.compile(r"layer_(\d{1,4})\.safetensors")
_HOOK = re.compile(r"blocks\.(\d{1,4})\.(.+)")
_OURS = "bitlens"


def layer_files(folder: Path) -> list[Path]:
    """Returns the files of a set, by layer. Raises DictionaryError where config.yaml is of another
    kind, and FileNotFoundError where there is no layer."""
    kind = read_flat_yaml(folder / CONFIG).get("model_kind", SET)
    if kind != SET:
        raise DictionaryError(f"{folder / CONFIG}: model_kind = {kind!r}, not {SET}")
    found = [path for path in folder.glob("layer_*.safetensors") if _FILE.fullmatch(path.name)]
    if not found:
        raise FileNotFoundError(f"{folder}: there is no layer_0.safetensors")
    return sorted(found, key=lambda path: int(path.stem.removeprefix("layer_")))


def read_layer(path: Path) -> tuple[DictionaryConfig, dict[str, torch.Tensor]]:
    """Reads one layer of a set, whose config.yaml lies beside it. Raises DictionaryError."""
    try:
        return _read_layer(path)
    except DictionaryError as error:
        raise DictionaryError(f"{path}: {error}") from error


def save_layer(cfg: DictionaryConfig, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Adds a transcoder to the set in a folder, which it begins where there is none.

    Raises ValueError for what is no transcoder, or does not fit the set, and OSError.
    """
    reads, writes = _HOOK.fullmatch(cfg.hook_name), _HOOK.fullmatch(cfg.hook_name_out)
    if not cfg.is_transcoder or reads is None or writes is None or reads[1] != writes[1]:
        raise ValueError("format 'circuit_tracer' holds transcoders from a block to itself")
    if cfg.rescale_acts_by_decoder_norm or cfg.apply_b_dec_to_input:
        raise ValueError("format 'circuit_tracer' neither rescales activations nor centres rows")
    kind = "jumprelu" if cfg.has_threshold else "topk" if cfg.selects_top_k else "relu"
    told = {
        "model_name": cfg.metadata.get("model_name", ""),
        "model_kind": SET,
        "feature_input_hook": reads[2],
        "feature_output_hook": writes[2],
        "activation": kind,
        "k": cfg.k,
    }
    json.dumps(dict(cfg.metadata))  # what cannot be written raises before a file is touched
    path.mkdir(parents=True, exist_ok=True)
    if (path / CONFIG).exists():
        there = read_flat_yaml(path / CONFIG)
        for name, value in told.items():
            if there.get(name) != value:
                raise ValueError(f"{path / CONFIG}: {name} is {there.get(name)!r}, not {value!r}")
    else:
        write_json(path / CONFIG, told)  # JSON is YAML, too
    named = {n: x.detach() for n, x in tensors.items()}
    named["W_enc"] = named["W_enc"].T
    if cfg.has_threshold:
        named[_THRESHOLD] = named.pop("threshold")
    metadata = {_OURS: json.dumps(dict(cfg.metadata))}
    file = path / f"layer_{reads[1]}.safetensors"
    write_tensors(file, {n: x.contiguous() for n, x in named.items()}, metadata)


def _read_layer(path: Path) -> tuple[DictionaryConfig, dict[str, torch.Tensor]]:
    match = _FILE.fullmatch(path.name)
    if match is None or not (path.parent / CONFIG).is_file():
        raise DictionaryError(f"expected layer_0.safetensors or the like, beside {CONFIG}")
    told = read_flat_yaml(path.parent / CONFIG)
    tensors = read_tensors(path)
    d_sae, d_in = matrix_shape(tensors, "W_enc", path.name)
    _, d_out = matrix_shape(tensors, "W_dec", path.name)
    tensors["W_enc"] = tensors["W_enc"].T.contiguous()
    kind = _activation(tensors, told)
    cfg = DictionaryConfig(
        architecture=kind + ("skip_" if "W_skip" in tensors else "") + "transcoder",
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        k=told.get("k") if kind == "topk_" else None,
        hook_name=_name(told, "feature_input_hook", match[1]),
        hook_name_out=_name(told, "feature_output_hook", match[1]),
        apply_b_dec_to_input=False,
        metadata={"model_name": str(told.get("model_name") or ""), **_metadata(path)},
    )
    return cfg, checked(tensors, cfg.tensor_shapes(), path.name)


def _activation(tensors: dict[str, torch.Tensor], told: Mapping[str, Any]) -> str:
    """The architecture's first part; a threshold moves to its own name."""
    if (threshold := tensors.pop(_THRESHOLD, None)) is not None:
        if not bool((threshold >= 0).all()):
            raise DictionaryError("a threshold is below 0, which would let negative features be")
        tensors["threshold"] = threshold
        return "jumprelu_"
    activation = told.get("activation", "relu")
    if activation not in ("relu", "topk"):
        raise DictionaryError(
            f"activation = {activation!r} without thresholds: expected relu, topk"
        )
    return "topk_" if activation == "topk" else ""


def _name(told: Mapping[str, Any], field: str, layer: str) -> str:
    hook = told.get(field)
    if not isinstance(hook, str) or not hook:
        raise DictionaryError(f"{CONFIG}: {field} = {hook!r}: expected a hook's name")
    return f"blocks.{int(layer)}.{hook}"


def _metadata(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get(_OURS, "{}"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DictionaryError(f"{path.name}: {error}") from error
    return found if isinstance(found, dict) else {}
