"""The campaign for files of dictionaries: every layout, one file of it damaged."""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bitlens.interp.dictionaries import (
    CrossLayerTranscoder,
    Dictionary,
    load_cross_layer,
    load_dictionaries,
)
from fuzz.mutations import damage_bytes, damage_tree, encode, json_text
from safetensors.torch import save

D, F = 4, 6
_ROWS = torch.linspace(-2, 2, 3 * D).view(3, D)

SOUND = ("a dictionary", "a cross-layer transcoder")

Files = dict[str, bytes]
"""Contents by path; a path's folders say what layouts say by them."""


def dictionary_files(folder: Path, number: int) -> str:
    """Writes and reads mutation number i; returns what came of it."""
    rng = random.Random(f"dictionary {number}")
    files = dict(rng.choice(LAYOUTS))
    name = rng.choice(list(files))
    files[name] = damaged_file(name, files[name], rng)
    return judge_files(folder, files)


def judge_files(folder: Path, files: Files) -> str:
    """Writes a layout's files and uses what they are read as."""
    root = folder / "dictionary"
    shutil.rmtree(root, ignore_errors=True)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    if (root / "W_enc_0.safetensors").exists():
        return judge_cross_layer(load_cross_layer(root))
    for found in load_dictionaries(root).values():
        judge_dictionary(found)
    return SOUND[0]


def judge_dictionary(found: Dictionary) -> None:
    """Encodes and decodes; raises AssertionError for what must not be."""
    for name, shape in found.cfg.tensor_shapes().items():
        parameter = getattr(found, name)
        assert tuple(parameter.shape) == shape, name
        assert bool(torch.isfinite(parameter).all()), name
    x = _ROWS[:, :1].expand(3, found.cfg.d_in)
    features = found.encode_sparse(x)
    assert features.indices.numel() <= 3 * found.cfg.d_sae
    assert tuple(found.decode(features, x).shape) == (3, found.cfg.d_out)


def judge_cross_layer(found: CrossLayerTranscoder) -> str:
    """Encodes and decodes the first layer."""
    x = _ROWS[:, :1].expand(3, found.cfg.d_model)
    y = found.decode([found.encode(x, 0)], 0)
    assert tuple(y.shape) == (3, found.cfg.d_model)
    return SOUND[1]


def damaged_file(name: str, content: bytes, rng: random.Random) -> bytes:
    """Returns a JSON or safetensors file with its tree, its header or its bytes damaged."""
    if name.endswith(".json") and rng.random() < 0.75:
        return encode(json_text(damage_tree(json.loads(content), rng), rng))
    if not name.endswith(".safetensors"):
        return damage_bytes(content, rng)
    size = 8 + int.from_bytes(content[:8], "little")
    kind = rng.randrange(4)
    if kind == 0:
        return damage_bytes(content[:size], rng) + content[size:]
    if kind == 1:
        return content[:size] + damage_bytes(content[size:], rng)
    header = encode(json_text(damage_tree(json.loads(content[8:size]), rng), rng))
    return len(header).to_bytes(8, "little") + header + content[size:]


def _tensors(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> bytes:
    generator = torch.Generator().manual_seed(0)
    return save({n: torch.rand(s, generator=generator).to(dtype) for n, s in shapes.items()})


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _sae_lens(architecture: str, **fields: Any) -> Files:
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (D, F), "W_dec": (F, D), "b_dec": (D,)}
    if architecture == "gated":
        shapes |= dict.fromkeys(("b_gate", "b_mag", "r_mag"), (F,))
    else:
        shapes["b_enc"] = (F,)
    if architecture.startswith("jumprelu"):
        shapes["threshold"] = (F,)
    hooks = {"hook_name": "blocks.0.mlp.hook_in", "hook_name_out": "blocks.0.mlp.hook_out"}
    told = {
        "architecture": architecture, "d_in": D, "d_sae": F, "d_out": D, "k": 2, "dtype": "float32",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "metadata": hooks, **fields,
    }  # fmt: skip
    return {"cfg.json": _json(**told), "sae_weights.safetensors": _tensors(shapes)}


def _npz() -> bytes:
    shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,), "threshold": (F,)}
    file = io.BytesIO()
    np.savez(file, **{n: np.linspace(0, 1, int(np.prod(s)), dtype="f4").reshape(s)
                      for n, s in shapes.items()})  # fmt: skip
    return file.getvalue()


def _set(kind: str) -> bytes:
    return (
        f"model_name: tiny # a model\nmodel_kind: {kind}\nfeature_input_hook: mlp.hook_in\n"
        "feature_output_hook: 'mlp.hook_out'\ntranscoders:\n- hf://a/b\nk: 2\n"
    ).encode()


_SPARSIFY = {"encoder.weight": (F, D), "encoder.bias": (F,), "W_dec": (F, D), "b_dec": (D,)}
_SECOND = {"w_enc": (D, F), "w_dec": (F, D), "b_enc": (F,), "b_dec": (D,), "threshold": (F,)}
_LLAMA = {
    "encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F), "decoder.bias": (D,),
}  # fmt: skip
_LAYER = {"W_enc": (F, D), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,)}

LAYOUTS: tuple[Files, ...] = (
    _sae_lens("standard", normalize_activations="layer_norm"),
    _sae_lens("topk", normalize_activations="expected_average_only_in", norm_scaling_factor=0.5),
    _sae_lens("abstopk"),
    _sae_lens("gated", normalize_activations="constant_norm_rescale"),
    _sae_lens("jumprelu_transcoder", apply_b_dec_to_input=False),
    {
        "layers.3/cfg.json": _json(activation="topk", k=2, num_latents=F, d_in=D, transcode=False),
        "layers.3/sae.safetensors": _tensors(_SPARSIFY, torch.bfloat16),
    },
    {"gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz": _npz()},
    {
        "resid_post/layer_2_width_16k_l0_big/config.json": _json(
            architecture="jump_relu", hf_hook_point_in="model.layers.2.output", model_name="gemma"
        ),
        "resid_post/layer_2_width_16k_l0_big/params.safetensors": _tensors(_SECOND),
    },
    {
        "L3R/hyperparams.json": _json(
            d_model=D,
            jump_relu_threshold=0.5,
            hook_point_in="blocks.3.hook_resid_post",
            dataset_average_activation_norm={"in": 7.5, "out": 7.5},
        ),
        "L3R/checkpoints/final.safetensors": _tensors(_LLAMA),
    },
    {"config.yaml": _set("transcoder_set"), "layer_0.safetensors": _tensors(_LAYER)},
    {
        "config.yaml": _set("cross_layer_transcoder"),
        "W_enc_0.safetensors": _tensors({"W_enc_0": (F, D), "b_enc_0": (F,), "b_dec_0": (D,)}),
        "W_dec_0.safetensors": _tensors({"W_dec_0": (F, 1, D)}),
    },
)
