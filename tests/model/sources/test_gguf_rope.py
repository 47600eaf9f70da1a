"""RoPE scaling of GGUF files: metadata keys, and tensors that divide the frequencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitlens
import numpy as np
import pytest
import torch
from bitlens.model.rope.scaling import (
    Linear,
    Llama3,
    LongRope,
    RopeScaling,
    Yarn,
    rotary_frequencies,
)
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import CheckpointError
from support.gguf_writer import LLAMA_METADATA, Raw, dense, gguf_bytes, llama_tensors

N_CTX = LLAMA_METADATA["llama.context_length"]
D_HEAD = LLAMA_METADATA["llama.embedding_length"] // LLAMA_METADATA["llama.attention.head_count"]
ONES = [1.0] * (D_HEAD // 2)


def write(path: Path, tensors: dict[str, Raw] | None = None, **keys: Any) -> Path:
    """`keys` are under llama.rope, with __ for a dot."""
    named = {f"llama.rope.{key.replace('__', '.')}": value for key, value in keys.items()}
    weights = llama_tensors(np.random.default_rng(0)) | (tensors or {})
    path.write_bytes(gguf_bytes({**LLAMA_METADATA, **named}, weights))
    return path


def scaling_of(path: Path) -> RopeScaling | None:
    (scaling,) = {layer.rope_scaling for layer in open_checkpoint(path).config.layers}
    return scaling


def test_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    assert scaling_of(write(path, scaling__type="none", scaling__factor=4.0)) is None
    assert scaling_of(write(path, scaling__type="linear", scaling__factor=1.0)) is None
    assert scaling_of(write(path, scaling__type="linear", scaling__factor=4.0)) == Linear(factor=4)
    # llama.cpp's loader takes a factor without a type, and the older key, for linear.
    assert scaling_of(write(path, scaling__factor=4.0)) == Linear(factor=4)
    assert scaling_of(write(path, scale_linear=4.0)) == Linear(factor=4)
    yarn = {"scaling__type": "yarn", "scaling__factor": 4.0}
    want = Yarn(factor=4.0, original_max_position_embeddings=N_CTX)
    assert scaling_of(write(path, **yarn)) == want
    assert open_checkpoint(path).config.n_ctx == 4 * N_CTX
    want = Yarn(factor=4.0, original_max_position_embeddings=16)
    assert scaling_of(write(path, **yarn, scaling__original_context_length=16)) == want


def test_llama3_comes_as_divisors(tmp_path: Path) -> None:
    """llama.cpp's converter writes what Llama 3.1's scaling divides frequencies by, as fp32."""
    theta = LLAMA_METADATA.get("llama.rope.freq_base", 10000.0)
    llama3 = Llama3(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
    )
    plain = rotary_frequencies(theta, D_HEAD, None).inv_freq
    scaled = rotary_frequencies(theta, D_HEAD, llama3).inv_freq
    assert plain[0] == scaled[0]
    assert plain[-1] == 8 * scaled[-1]
    divisors = np.float32([a / b for a, b in zip(plain, scaled, strict=True)])
    path = write(tmp_path / "m.gguf", {"rope_freqs.weight": dense(divisors)})
    scaling = scaling_of(path)
    assert scaling is not None
    assert not scaling.follows_length
    found = rotary_frequencies(theta, D_HEAD, scaling)
    assert found.attention_factor == 1.0
    for ours, want in zip(found.inv_freq, scaled, strict=True):
        assert abs(ours - want) <= 2**-24 * want
    model = bitlens.load(path)
    assert "rope_freqs" not in " ".join(model.op_addresses)
    assert torch.isfinite(model(torch.arange(9))).all()


def test_longrope_reads_both_lists(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    long = [2.0 * x for x in ONES]
    tensors = {
        "rope_factors_short.weight": dense(np.float32(ONES)),
        "rope_factors_long.weight": dense(np.float32(long)),
    }
    keys = {"scaling__type": "longrope", "scaling__original_context_length": 16}
    assert scaling_of(write(path, tensors, **keys, scaling__attn_factor=1.25)) == LongRope(
        short_factor=tuple(ONES),
        long_factor=tuple(long),
        original_max_position_embeddings=16,
        attention_factor=1.25,
    )
    with pytest.raises(ValueError, match='backend="torch"'):
        bitlens.load(path)
    assert torch.isfinite(bitlens.load(path, backend="torch")(torch.arange(20))).all()
    del tensors["rope_factors_long.weight"]
    with pytest.raises(CheckpointError, match=r"rope_factors_long.weight: needed by longrope"):
        open_checkpoint(write(path, tensors, **keys))


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"scaling__type": "dynamic"}, {}, "'dynamic': supported are none, linear, yarn"),
        ({"scaling__type": 3}, {}, "scaling.type = 3"),
        ({"scaling__type": "linear", "scaling__factor": 0.5}, {}, "factor = 0.5"),
        ({"scaling__factor": float("nan")}, {}, "floating-point number"),
        ({"scaling__type": "yarn", "scaling__factor": 2}, {}, "floating-point number"),
        ({"scaling__attn_factor": 1.5}, {}, "only longrope"),
        ({}, {"rope_factors_long.weight": ONES}, "not used by none RoPE"),
        ({}, {"rope_freqs.weight": [*ONES, 1.0]}, "d_head"),
        ({}, {"rope_freqs.weight": [0.0, *ONES[1:]]}, "at least 0.001"),
        ({}, {"rope_freqs.weight": [float("inf"), *ONES[1:]]}, "finite numbers"),
        ({"scaling__factor": 2.0}, {"rope_freqs.weight": ONES}, "beside linear"),
    ],
)
def test_what_is_not_supported_is_named(
    tmp_path: Path, keys: dict[str, Any], tensors: dict[str, list[float]], message: str
) -> None:
    raw = {name: dense(np.float32(values)) for name, values in tensors.items()}
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write(tmp_path / "m.gguf", raw, **keys))
