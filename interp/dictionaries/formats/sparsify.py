"""sparsify's folders (EleutherAI): cfg.json and sae.safetensors, named after the module they read.

`layers.10` is the residual stream after block 10, `layers.10.mlp` the MLP's output, of which a
transcoder reads the input. Activations are the k largest positive pre-activations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ....model.weights.atomic import write_json, write_tensors
from ..config import DictionaryConfig, DictionaryError
from .reading import checked, matrix_shape, read_json, read_tensors

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"
FILES = (CONFIG, WEIGHTS)
_OURS = "bitlens"

_HOOKPOINT = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d{1,4})(?:\.(mlp|self_attn|attn))?")
_OUTPUTS = {None: "hook_resid_post", "mlp": "hook_mlp_out"} | dict.fromkeys(
    ("self_attn", "attn"), "hook_attn_out"
)
_TRANSCODED = {"mlp": "mlp.hook_in"}


def read_folder(path: Path) -> tuple[DictionaryConfig, dict[str, torch.Tensor]]:
    """Reads a hookpoint's folder. Raises DictionaryError."""
    told = read_json(path / CONFIG)
    if told.get("activation", "topk") != "topk":
        raise DictionaryError(f"activation = {told['activation']!r}: only 'topk' is read")
    if told.get("signed"):
        raise DictionaryError("signed = true: features are positive here")
    found = read_tensors(path / WEIGHTS)
    d_sae, d_in = matrix_shape(found, "encoder.weight", WEIGHTS)
    _, d_out = matrix_shape(found, "W_dec", WEIGHTS)
    transcode = bool(told.get("transcode", False))
    if transcode:
        kind = "topk_skip_transcoder" if "W_skip" in found else "topk_transcoder"
    else:
        kind = "topk"
    reads, writes = _hooks(path, told, transcode)
    ours = told.get(_OURS)
    metadata = ours.get("metadata") if isinstance(ours, dict) else None
    cfg = DictionaryConfig(
        architecture=kind,
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        k=told.get("k"),
        hook_name=reads,
        hook_name_out=writes,
        apply_b_dec_to_input=not transcode,
        metadata=metadata if isinstance(metadata, dict) else {},
    )
    shapes = {"encoder.weight": (d_sae, d_in), "encoder.bias": (d_sae,), "W_dec": (d_sae, d_out)}
    shapes |= {"b_dec": (d_out,)} | ({"W_skip": (d_out, d_in)} if "W_skip" in found else {})
    checked(found, shapes, WEIGHTS)
    tensors = dict(found)
    tensors["W_enc"] = tensors.pop("encoder.weight").T.contiguous()
    tensors["b_enc"] = tensors.pop("encoder.bias")
    return cfg, tensors


def save_folder(cfg: DictionaryConfig, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes a hookpoint's folder; sparsify reads the hook from its name.

    Raises ValueError for an architecture that sparsify has not, and OSError.
    """
    if cfg.architecture not in ("topk", "topk_transcoder", "topk_skip_transcoder"):
        raise ValueError(f"format 'sparsify' holds topk dictionaries, not {cfg.architecture}")
    if cfg.normalize_activations != "none":
        raise ValueError("format 'sparsify' does not normalise rows")
    if cfg.rescale_acts_by_decoder_norm or cfg.apply_b_dec_to_input == cfg.is_transcoder:
        raise ValueError(
            "format 'sparsify' takes b_dec from an SAE's input and not from a transcoder's, and "
            "ranks pre-activations as they are; this dictionary does otherwise"
        )
    told = {
        "activation": "topk",
        "expansion_factor": max(1, cfg.d_sae // cfg.d_in),
        "normalize_decoder": True,
        "num_latents": cfg.d_sae,
        "k": cfg.k,
        "multi_topk": False,
        "skip_connection": cfg.has_skip,
        "transcode": cfg.is_transcoder,
        "d_in": cfg.d_in,
        _OURS: {
            "hook_name": cfg.hook_name,
            "hook_name_out": cfg.hook_name_out,
            "metadata": dict(cfg.metadata),
        },
    }
    json.dumps(told)  # what cannot be written raises before a file is touched
    path.mkdir(parents=True, exist_ok=True)
    named = {n: x.detach() for n, x in tensors.items()}
    named["encoder.weight"] = named.pop("W_enc").T
    named["encoder.bias"] = named.pop("b_enc")
    write_tensors(path / WEIGHTS, {n: x.contiguous() for n, x in named.items()})
    write_json(path / CONFIG, told)


def _hooks(path: Path, told: Mapping[str, Any], transcode: bool) -> tuple[str, str]:
    ours = told.get(_OURS)
    if isinstance(ours, dict):
        reads, writes = ours.get("hook_name"), ours.get("hook_name_out")
        if not isinstance(reads, str) or not isinstance(writes, str):
            raise DictionaryError(f"{CONFIG}: {_OURS}.hook_name: expected a name")
        return reads, writes
    if path.name == "embed_tokens" and not transcode:
        return "hook_embed", "hook_embed"
    match = _HOOKPOINT.fullmatch(path.name)
    if match is None or (transcode and match[2] not in _TRANSCODED):
        raise DictionaryError(
            f"the folder's name {path.name!r} says which module is read, as layers.10.mlp does"
        )
    writes = f"blocks.{match[1]}.{_OUTPUTS[match[2]]}"
    reads = f"blocks.{match[1]}.{_TRANSCODED[match[2]]}" if transcode else writes
    return reads, writes
