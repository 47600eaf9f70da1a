"""Scaled rotary frequencies against exact arithmetic (Arb), and how they are asked for.

Tensor names: T positions.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bitlens
import flint
import pytest
import torch
import transformers
from bitlens import _core
from bitlens.model.config import LayerConfig
from bitlens.model.config_error import ConfigError
from bitlens.model.rope.parameters import (
    huggingface_rope,
    scaling_from_huggingface,
    with_rope_scaling,
)
from bitlens.model.rope.scaling import RopeScaling, Yarn, rotary_frequencies
from bitlens.model.rope.tables import rope_table
from bitlens.model.sources.huggingface_config import config_from_huggingface
from support.random_models import CONFIGS, random_checkpoint, random_model

Arb = flint.arb

FAR = 200_000
N_CTX = 8192
SHAPES = [(1e4, 64), (1e5, 64), (5e5, 128), (1e6, 80), (1e7, 256)]


def fields_of(kind: str, d_head: int) -> dict[str, Any]:
    """Parameters of the size that published models have."""
    short = [1.0 + j / d_head for j in range(d_head // 2)]
    long = [1.0 + j * j / 7 for j in range(d_head // 2)]
    lists = {"short_factor": short, "long_factor": long}
    return {
        "linear": {"factor": 6.25},
        "ntk": {"factor": 6.25},
        "dynamic": {"factor": 6.25},
        "yarn": {"factor": 6.25, "original_max_position_embeddings": 32768},
        "yarn by mscale": {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0}
        | {"mscale_all_dim": 0.707, "truncate": False, "beta_fast": 30},
        "longrope": {"factor": 32.0, "original_max_position_embeddings": 4096, **lists},
        "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        | {"original_max_position_embeddings": 8192},
    }[kind] | ({} if " " in kind else {"rope_type": kind})


KINDS = ("linear", "ntk", "dynamic", "yarn", "yarn by mscale", "longrope", "llama3")


def exact(fields: Mapping[str, Any], theta: float, d_head: int) -> tuple[list[Any], Any]:
    """Frequencies and attention factor by the published formulas at 200 bits, for a pass of 200,000
    positions of a model of context N_CTX. Written after the papers, not after our code."""
    kind, s = fields["rope_type"], Arb(fields["factor"])
    trained = Arb(fields.get("original_max_position_embeddings", N_CTX))
    base, one = Arb(theta), Arb(1)
    if kind in ("ntk", "dynamic"):
        stretch = s if kind == "ntk" else s * FAR / N_CTX - (s - 1)
        base = base * stretch ** (Arb(d_head) / (d_head - 2))
    plain = [base ** (-Arb(2 * j) / d_head) for j in range(d_head // 2)]
    if kind == "linear":
        return [f / s for f in plain], one
    if kind in ("ntk", "dynamic"):
        return plain, one
    if kind == "longrope":
        factor = (one + s.log() / trained.log()).sqrt()
        divisors = fields["long_factor"]
        return [f / Arb(x) for f, x in zip(plain, divisors, strict=True)], factor
    if kind == "llama3":
        return [_llama3(f, fields, trained) for f in plain], one
    return _yarn(plain, fields, trained, base, d_head)


def _llama3(f: Any, fields: Mapping[str, Any], trained: Any) -> Any:
    low, high = fields["low_freq_factor"], fields["high_freq_factor"]
    wavelength = 2 * Arb.pi() / f
    if wavelength < trained / high:
        return f
    if wavelength > trained / low:
        return f / fields["factor"]
    smooth = (trained / wavelength - low) / (high - low)
    return (1 - smooth) * f / fields["factor"] + smooth * f


def _yarn(
    plain: list[Any], fields: Mapping[str, Any], trained: Any, base: Any, d_head: int
) -> tuple[list[Any], Any]:
    def index(turns: float) -> Any:
        return d_head * (trained / (2 * Arb.pi() * turns)).log() / (2 * base.log())

    low, high = index(fields.get("beta_fast", 32)), index(1)
    if fields.get("truncate", True):
        low, high = low.floor(), high.ceil()
    low, high = low.max(Arb(0)), high.min(Arb(d_head - 1))
    s = Arb(fields["factor"])
    found = []
    for j, f in enumerate(plain):
        ramp = ((j - low) / (high - low)).max(Arb(0)).min(Arb(1))
        found.append(ramp * f / s + (1 - ramp) * f)
    magnitude = s.log() / 10 * Arb(fields.get("mscale", 1)) + 1
    if "mscale" in fields:
        magnitude /= s.log() / 10 * Arb(fields["mscale_all_dim"]) + 1
    return found, magnitude


@pytest.fixture(autouse=True)
def _two_hundred_bits() -> Any:
    before, flint.ctx.prec = flint.ctx.prec, 200
    yield
    flint.ctx.prec = before


def scaling_of(kind: str, d_head: int) -> RopeScaling:
    scaling = scaling_from_huggingface(fields_of(kind, d_head), kind, N_CTX)
    assert scaling is not None
    return scaling


@pytest.mark.parametrize(("theta", "d_head"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_angles_up_to_200_000(kind: str, theta: float, d_head: int) -> None:
    found = rotary_frequencies(theta, d_head, scaling_of(kind, d_head), FAR + 1)
    want, magnitude = exact(fields_of(kind, d_head), theta, d_head)
    if kind == "dynamic":  # the pass of FAR + 1 positions
        assert found != rotary_frequencies(theta, d_head, scaling_of(kind, d_head), FAR)
        found = rotary_frequencies(theta, d_head, scaling_of(kind, d_head), FAR)
    for f, f_exact in zip(found.inv_freq, want, strict=True):
        assert float(abs(Arb(f) - f_exact) / f_exact) < 1e-14
        assert float(abs(Arb(FAR * f) - FAR * f_exact)) < 1e-9
    assert float(abs(Arb(found.attention_factor) - magnitude)) < 1e-15 * 4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("dynamic", "longrope")])
def test_tables_up_to_200_000(kind: str) -> None:
    """cos and sin times the attention factor, within 1 fp32 ULP of exact arithmetic."""
    theta, d_head = 5e5, 64
    table = rope_table(theta, d_head, FAR + 1, scaling_of(kind, d_head))
    want, magnitude = exact(fields_of(kind, d_head), theta, d_head)
    for position in (0, 1, 4097, 131071, FAR):
        for j, f in enumerate(want):
            for entry, exactly in (
                (table.cos[position, j], (position * f).cos() * magnitude),
                (table.sin[position, j], (position * f).sin() * magnitude),
            ):
                ulp = 2.0 ** (math.frexp(float(exactly))[1] - 24)
                assert float(abs(Arb(float(entry)) - exactly)) <= 0.5001 * ulp + 1e-10


PINNED = {
    "linear": ("0x1.658ae31c32fe8p-12", "0x1.02e371104b7d7p-21", "0x1.0000000000000p+0"),
    "ntk": ("0x1.cc55e520ef887p-11", "0x1.02e371104b7d7p-21", "0x1.0000000000000p+0"),
    "dynamic": ("0x1.8f12ea23adddap-13", "0x1.5f6be1504803fp-26", "0x1.0000000000000p+0"),
    "yarn": ("0x1.923c3f7fb95e5p-10", "0x1.02e371104b7d7p-21", "0x1.2eea018167cd9p+0"),
    "yarn by mscale": ("0x1.634078e7fb6a0p-11", "0x1.439c4d545e5cdp-24", "0x1.15f22a51357d2p+0"),
    "longrope": ("0x1.0db2b1eea6772p-14", "0x1.766ce95709bdfp-26", "0x1.30b3713738289p+0"),
    "llama3": ("0x1.67a238074c42fp-10", "0x1.948360a975f40p-22", "0x1.0000000000000p+0"),
}


def test_bits_are_pinned() -> None:
    """Frequencies 15 and 31 and the attention factor at theta 5e5, d_head 64."""
    for kind, want in PINNED.items():
        found = rotary_frequencies(5e5, 64, scaling_of(kind, 64), FAR)
        values = (found.inv_freq[15], found.inv_freq[31], found.attention_factor)
        assert tuple(map(float.hex, values)) == want, kind


def test_unscaled_frequencies_are_the_kernels_own() -> None:
    for theta, d_head in SHAPES:
        inv_freq = torch.empty(d_head // 2, dtype=torch.float64)
        _core.rope_inv_freq(theta, d_head, inv_freq)
        assert list(rotary_frequencies(theta, d_head, None).inv_freq) == inv_freq.tolist()


# How a scaling is asked for

LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
    "rope_theta": 5e5,
}
YARN = {"rope_type": "yarn", "factor": 4.0}


def layer_of(fields: Mapping[str, Any]) -> LayerConfig:
    first, second = config_from_huggingface(LLAMA | fields).layers
    assert first == second
    return first


def test_old_and_new_spelling() -> None:
    """transformers 4 wrote rope_scaling with `type`, 5 writes rope_parameters with rope_theta."""
    want = LayerConfig(
        rope_theta=5e5, rope_scaling=Yarn(factor=4.0, original_max_position_embeddings=4096)
    )
    assert layer_of({"rope_scaling": {"type": "yarn", "factor": 4}}) == want
    assert layer_of({"rope_scaling": YARN | {"finetuned": True}}) == want
    assert layer_of({"rope_parameters": YARN}) == want
    assert layer_of({"rope_theta": 1e4, "rope_parameters": YARN | {"rope_theta": 5e5}}) == want
    assert layer_of({"rope_parameters": {"full_attention": YARN}}) == want
    outside = {"rope_scaling": YARN, "original_max_position_embeddings": 2048}
    scaling = layer_of(outside).rope_scaling
    assert isinstance(scaling, Yarn)
    assert scaling.original_max_position_embeddings == 2048


@pytest.mark.parametrize(
    ("parameters", "n_ctx"),
    [
        ({"rope_type": "default"}, 4096),
        ({"rope_type": "linear", "factor": 2.5}, 10240),
        ({"rope_type": "dynamic", "factor": 2}, 8192),
        (YARN, 16384),
        (YARN | {"original_max_position_embeddings": 1024}, 4096),
        (fields_of("llama3", 8) | {"original_max_position_embeddings": 2048}, 4096),
        (fields_of("longrope", 8) | {"original_max_position_embeddings": 1024}, 4096),
    ],
)
def test_the_context_of_a_checkpoint(parameters: dict[str, Any], n_ctx: int) -> None:
    assert config_from_huggingface(LLAMA | {"rope_scaling": parameters}).n_ctx == n_ctx


def test_gemma3_scales_its_global_layers() -> None:
    config = CONFIGS["gemma3"]
    scaled = with_rope_scaling(config, {"rope_type": "linear", "factor": 8.0})
    assert scaled.n_ctx == 8 * config.n_ctx
    assert [layer.rope_scaling is not None for layer in scaled.layers] == [False, False, True]
    nested = with_rope_scaling(config, {"sliding_attention": YARN | {"rope_theta": 2e4}})
    assert [layer.rope_scaling is not None for layer in nested.layers] == [True, True, False]
    assert [layer.rope_theta for layer in nested.layers] == [2e4, 2e4, 1e6]
    windows = with_rope_scaling(CONFIGS["mistral"], YARN)
    assert all(layer.rope_scaling is not None for layer in windows.layers)


def test_default_takes_a_scaling_away() -> None:
    scaled = with_rope_scaling(CONFIGS["llama"], YARN)
    plain = with_rope_scaling(scaled, {"rope_type": "default"})
    assert plain.layers == CONFIGS["llama"].layers


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_type": "proportional"}, "'proportional': supported are default, linear, ntk"),
        ({"rope_type": ["yarn"]}, "supported are default"),
        ({"rope_type": "linear"}, r"rope_scaling.factor = None: expected a number"),
        ({"rope_type": "linear", "factor": 0.5}, "factor = 0.5: expected 1 to"),
        ({"rope_type": "linear", "factor": math.nan}, "factor = nan"),
        ({"rope_type": "linear", "factor": True}, "factor = True"),
        ({"rope_type": "linear", "factor": 10**400}, "factor = 1000"),
        ({"rope_type": "ntk", "factor": 2.0, "mrope_section": [1]}, "mrope_section: bitlens does"),
        (YARN | {"original_max_position_embeddings": 1}, "original_max_position_embeddings = 1"),
        (YARN | {"original_max_position_embeddings": 4096.0}, "expected an integer"),
        (YARN | {"truncate": "no"}, "truncate = 'no'"),
        (YARN | {"attention_factor": -1.0}, "attention_factor = -1"),
        (YARN | {"beta_fast": 0}, "beta_fast = 0"),
        (YARN | {"rope_theta": 0.5}, "rope_theta = 0.5"),
        (YARN | {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (fields_of("llama3", 10) | {"high_freq_factor": 1.0}, "more than low_freq_factor = 1.0"),
        (fields_of("longrope", 64), "d_head = 10 needs 5"),
        (fields_of("longrope", 10) | {"long_factor": [0.0] * 5}, "at least 0.001"),
        (fields_of("longrope", 10) | {"short_factor": 2.0}, "a list of numbers"),
        (fields_of("longrope", 10) | {"long_factor": [10**400] * 5}, "finite numbers"),
        (fields_of("longrope", 10), 'backend="torch"'),
        (fields_of("dynamic", 10), '"rope_type": "ntk"'),
        ([YARN], "expected a dict"),
    ],
)
def test_what_is_not_supported_is_named(fields: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        random_model("llama", rope_scaling=fields)


@pytest.mark.parametrize("kind", ["linear", "yarn", "yarn by mscale", "longrope", "llama3"])
def test_huggingface_spelling_and_back(kind: str) -> None:
    scaling = scaling_of(kind, 64)
    parameters = huggingface_rope(LayerConfig(rope_theta=5e5, rope_scaling=scaling))
    config = transformers.LlamaConfig(
        head_dim=64, max_position_embeddings=N_CTX, rope_parameters=parameters
    )
    assert config.rope_parameters["rope_theta"] == 5e5
    assert scaling_from_huggingface(config.rope_parameters, kind, N_CTX) == scaling


def test_what_huggingface_cannot_say() -> None:
    for kind in ("ntk", "dynamic"):
        with pytest.raises(ConfigError, match=kind):
            huggingface_rope(LayerConfig(rope_scaling=scaling_of(kind, 64)))


def test_d_head_of_two_has_no_ntk() -> None:
    with pytest.raises(ConfigError, match="at least two frequencies"):
        rotary_frequencies(1e4, 2, scaling_of("ntk", 64))


def test_long_list_alone_is_fixed() -> None:
    """The way out that the error for longrope names."""
    fields = fields_of("longrope", 10)
    fields["short_factor"] = fields["long_factor"]
    tokens = torch.arange(12)
    assert torch.isfinite(random_model("llama", rope_scaling=fields)(tokens)).all()


def test_context_grows_with_the_factor() -> None:
    tokens = torch.arange(200)
    with pytest.raises(ValueError, match="beyond the context of 128"):
        random_model("llama")(tokens)
    model = random_model("llama", rope_scaling={"rope_type": "linear", "factor": 2.0})
    assert model(tokens).shape[1] == 200


def test_real_model_by_argument(smollm2_path: Path) -> None:
    model = bitlens.load(smollm2_path, rope_scaling=YARN)
    assert model.config.n_ctx == 4 * 8192
    assert "Paris" in model.generate("The capital of France is", max_new_tokens=4).text[0]
    json.dumps(dataclasses.asdict(model.config))
    assert random_checkpoint("llama").config == CONFIGS["llama"]
