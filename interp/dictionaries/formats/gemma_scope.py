"""Gemma Scope (Lieberum et al., 2024) and Gemma Scope 2: JumpReLU dictionaries of Gemma 2 and 3.

The first keeps `params.npz` in `layer_20/width_16k/average_l0_71/` of a repository for each site,
the second `params.safetensors`, mostly with config.json, in
`resid_post/layer_12_width_16k_l0_small/`. Which hook is read stands in these names, or in
config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..config import DictionaryConfig, DictionaryError
from .npz import read_npz
from .reading import checked, matrix_shape, read_json, read_tensors

FILES_1 = ("params.npz",)
FILES_2 = ("params.safetensors",)

_LAYER = re.compile(r"layer_(\d{1,4})(?!\d)")
_SITES_1 = {
    "-res": ("hook_resid_post", None),
    "-mlp": ("hook_mlp_out", None),
    "-att": ("attn.hook_z", None),
    "-transcoders": ("ln2.hook_normalized", "hook_mlp_out"),
}
_SITES_2 = {
    "resid_post": ("hook_resid_post", None),
    "attn_out": ("attn.hook_z", None),
    "mlp_out": ("hook_mlp_out", None),
    "transcoder": ("mlp.hook_in", "hook_mlp_out"),
}
_HOOKS_2 = {
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "post_feedforward_layernorm.output": "hook_mlp_out",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
}
"""Gemma Scope 2's names, behind `model.layers.i.`, and what they are here."""
_HF_HOOK = re.compile(r"model\.layers\.(\d{1,4})\.(.+)")

Sites = tuple[str, str | None]


def read_first(path: Path) -> tuple[DictionaryConfig, dict[str, torch.Tensor]]:
    """Reads a folder of Gemma Scope. Raises DictionaryError."""
    if "embedding" in path.parts:
        raise DictionaryError("a dictionary of the embedding, unscaled, which is no hook here")
    tensors = {_renamed(n): x for n, x in read_npz(path / FILES_1[0]).items()}
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not bool((scaling == 1).all()):
        raise DictionaryError("params.npz has a scaling_factor other than 1")
    reads, writes = _in_block(_layer(path), _site_of(path, _SITES_1))
    model = next(
        (m for p in path.parts if (m := re.search(r"gemma-scope-(\w+-(?:pt|it))", p))), None
    )
    name = "gemma-2" if model is None else f"gemma-2-{model[1].removesuffix('-pt')}"
    return _dictionary(tensors, reads, writes, {"model_name": name}, FILES_1[0])


def read_second(path: Path) -> tuple[DictionaryConfig, dict[str, torch.Tensor]]:
    """Reads a folder of Gemma Scope 2. Raises DictionaryError."""
    told = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    if told.get("architecture", "jump_relu") != "jump_relu":
        raise DictionaryError(f"config.json: architecture = {told['architecture']!r}")
    tensors = {_renamed(n): x for n, x in read_tensors(path / FILES_2[0]).items()}
    if (skip := tensors.pop("affine_skip_connection", None)) is not None:
        if skip.ndim != 2:
            raise DictionaryError("affine_skip_connection is no matrix")
        tensors["W_skip"] = skip.T.contiguous()  # stored [d_in, d_out]
    reads = _hook(told, "hf_hook_point_in")
    writes = _hook(told, "hf_hook_point_out")
    if reads is None:
        reads, writes = _in_block(_layer(path), _site_of(path, _SITES_2))
    name = told.get("model_name")
    metadata = {"model_name": name if isinstance(name, str) else "gemma-3"}
    return _dictionary(tensors, reads, writes, metadata, FILES_2[0])


def _dictionary(
    tensors: dict[str, torch.Tensor],
    reads: str,
    writes: str | None,
    metadata: Mapping[str, Any],
    where: str,
) -> tuple[DictionaryConfig, dict[str, torch.Tensor]]:
    d_in, d_sae = matrix_shape(tensors, "W_enc", where)
    _, d_out = matrix_shape(tensors, "W_dec", where)
    kind = "jumprelu"
    if writes is not None and writes != reads:
        kind = "jumprelu_skip_transcoder" if "W_skip" in tensors else "jumprelu_transcoder"
    cfg = DictionaryConfig(
        architecture=kind,
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        hook_name=reads,
        hook_name_out=writes or reads,
        apply_b_dec_to_input=False,
        metadata={**metadata, "context_size": 1024, "prepend_bos": True},
    )
    return cfg, checked(tensors, cfg.tensor_shapes(), where)


def _renamed(name: str) -> str:
    return "W" + name[1:] if name in ("w_enc", "w_dec") else name


def _layer(path: Path) -> int:
    for part in reversed(path.parts):
        if match := _LAYER.search(part):
            return int(match[1])
    raise DictionaryError("no part of the path says which layer it is of, as layer_20 does")


def _site_of(path: Path, sites: Mapping[str, Sites]) -> Sites:
    for part in reversed(path.parts):
        for name, site in sites.items():
            if re.search(rf"{re.escape(name)}(?![a-z])", part):
                return site
    raise DictionaryError(
        f"no part of the path says what it reads: expected one with {', '.join(sites)}, as in the "
        "repository that it is from"
    )


def _in_block(layer: int, site: Sites) -> tuple[str, str | None]:
    reads, writes = site
    return f"blocks.{layer}.{reads}", None if writes is None else f"blocks.{layer}.{writes}"


def _hook(told: Mapping[str, Any], field: str) -> str | None:
    name = told.get(field)
    if name is None:
        return None
    match = _HF_HOOK.fullmatch(name) if isinstance(name, str) else None
    if match is None or match[2] not in _HOOKS_2:
        raise DictionaryError(f"config.json: {field} = {name!r} is no hook that is known here")
    return f"blocks.{match[1]}.{_HOOKS_2[match[2]]}"
