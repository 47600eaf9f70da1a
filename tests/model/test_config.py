"""config.json -> ModelConfig: what transformers computes, or an error that names the field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import transformers
from bitlens.model.config import LayerConfig, ModelConfig
from bitlens.model.config_error import ConfigError
from bitlens.model.sources.huggingface_config import config_from_huggingface
from bitlens.model.weights.architectures import gguf_name, huggingface_name, tensor_shapes

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
}
GEMMA = {
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 128,
    "sliding_window": 512,
    "hidden_activation": "gelu_pytorch_tanh",
}


def test_smollm2() -> None:
    config = config_from_huggingface(LLAMA)
    assert config == ModelConfig(
        architecture="llama",
        n_layers=30,
        d_model=576,
        n_heads=9,
        n_key_value_heads=3,
        d_head=64,
        d_mlp=1536,
        d_vocab=49152,
        n_ctx=8192,
        eps=1e-5,
        attn_scale=0.125,
        tie_embeddings=True,
        layers=(LayerConfig(rope_theta=100000.0),) * 30,
    )


def saved(config: transformers.PretrainedConfig) -> dict[str, Any]:
    """config.json as transformers would write it."""
    fields: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    return fields


def test_old_and_new_rope_fields_agree() -> None:
    """transformers 5 writes rope_parameters where 4 wrote rope_theta and rope_scaling."""
    old = config_from_huggingface(LLAMA | {"rope_scaling": None})
    fields = {k: v for k, v in LLAMA.items() if k not in ("model_type", "rope_theta")}
    parameters = {"rope_theta": 100000.0, "rope_type": "default"}
    new = transformers.LlamaConfig(**fields, rope_parameters=parameters)
    assert "rope_theta" not in saved(new)
    assert config_from_huggingface(saved(new)) == old


@pytest.mark.parametrize(
    "kind",
    [
        transformers.LlamaConfig,
        transformers.MistralConfig,
        transformers.Qwen2Config,
        transformers.Qwen3Config,
        transformers.Gemma2Config,
        transformers.Gemma3TextConfig,
    ],
)
def test_left_out_fields_mean_what_transformers_assumes(kind: Any) -> None:
    full = kind(num_hidden_layers=7)
    required = ["vocab_size", "hidden_size", "intermediate_size", "num_attention_heads"]
    fields = {name: getattr(full, name) for name in required}
    short = fields | {"model_type": full.model_type, "num_hidden_layers": 7}
    assert config_from_huggingface(short) == config_from_huggingface(saved(full))


def test_mistral_slides_everywhere() -> None:
    fields = LLAMA | {"model_type": "mistral", "sliding_window": 4096}
    assert {layer.window for layer in config_from_huggingface(fields).layers} == {4096}
    fields["sliding_window"] = None
    assert {layer.window for layer in config_from_huggingface(fields).layers} == {None}


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_qwen_slides_from_max_window_layers_on(model_type: str) -> None:
    fields = LLAMA | {"model_type": model_type, "sliding_window": 16, "max_window_layers": 28}
    assert {layer.window for layer in config_from_huggingface(fields).layers} == {None}
    config = config_from_huggingface(fields | {"use_sliding_window": True})
    assert [layer.window for layer in config.layers] == [None] * 28 + [16] * 2
    kind = transformers.Qwen2Config if model_type == "qwen2" else transformers.Qwen3Config
    theirs = kind(**{k: v for k, v in fields.items() if k != "model_type"}, use_sliding_window=True)
    assert [layer.window is not None for layer in config.layers] == [
        t == "sliding_attention" for t in theirs.layer_types
    ]
    assert config.qk_norm == (model_type == "qwen3")
    assert config.attn_bias == (model_type == "qwen2")
    assert not config.attn_out_bias


def test_gemma3() -> None:
    config = config_from_huggingface(GEMMA)
    local, everywhere = LayerConfig(window=512, rope_theta=1e4), LayerConfig(rope_theta=1e6)
    assert config.layers == ((local,) * 5 + (everywhere,)) * 3
    assert (config.act_fn, config.norm_offset, config.tie_embeddings) == ("gelu_tanh", 1.0, True)
    assert config.qk_norm
    assert config.sandwich_norms
    assert config.embed_scale == np.float32(640**0.5)
    assert config.attn_scale == 128**-0.5
    parameters = {
        "full_attention": {"rope_type": "default", "rope_theta": 2e6},
        "sliding_attention": {"rope_type": "default"},
    }
    config = config_from_huggingface(GEMMA | {"rope_parameters": parameters})
    assert [layer.rope_theta for layer in config.layers[4:6]] == [1e4, 2e6]


GEMMA2 = {name: x for name, x in GEMMA.items() if name != "sliding_window"} | {
    "model_type": "gemma2",
    "attn_logit_softcapping": 20.0,
}


def test_gemma2() -> None:
    config = config_from_huggingface(GEMMA2)
    sliding, whole = LayerConfig(window=4096, rope_theta=1e4), LayerConfig(rope_theta=1e4)
    assert config.layers == (sliding, whole) * 9
    assert (config.act_fn, config.norm_offset, config.tie_embeddings) == ("gelu_tanh", 1.0, True)
    assert (config.sandwich_norms, config.qk_norm) == (True, False)
    assert (config.attn_logit_softcap, config.final_logit_softcap) == (20.0, 30.0)
    assert config.embed_scale == np.float32(640**0.5)
    assert config.attn_scale == 128**-0.5
    # transformers' Gemma 2 does not read what makes Gemma 3's pattern.
    assert config_from_huggingface(GEMMA2 | {"sliding_window_pattern": 6}) == config
    plain = config_from_huggingface(GEMMA2 | dict.fromkeys(SOFT_CAPS))
    assert (plain.attn_logit_softcap, plain.final_logit_softcap) == (None, None)


SOFT_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")


@pytest.mark.parametrize("name", SOFT_CAPS)
@pytest.mark.parametrize("fields", [GEMMA2, GEMMA])
def test_a_cap_is_positive_or_null(fields: dict[str, Any], name: str) -> None:
    for cap, message in ((0.0, "null or a positive"), (-1, "null or"), ("30", "a number")):
        with pytest.raises(ConfigError, match=f"{name} = .*{message}"):
            config_from_huggingface(fields | {name: cap})
    config = config_from_huggingface(fields | {name: 7})
    assert 7.0 in (config.attn_logit_softcap, config.final_logit_softcap)


LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model_type": "mamba"},
            "'mamba': supported are llama, mistral, qwen2, qwen3, gemma2, gemma3_text",
        ),
        ({"model_type": None}, "model_type = None"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu': supported are silu"),
        ({"rope_scaling": {"type": "mrope"}}, "rope_scaling asks for .* 'mrope'"),
        ({"rope_parameters": LLAMA3_ROPE}, "rope_parameters.low_freq_factor = None"),
        ({"rope_parameters": {"full_attention": LLAMA3_ROPE}}, "rope_parameters.full_attention"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": [1]}, "expected an object"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"num_local_experts": 8}, "num_local_experts = 8"),
        ({"layer_types": ["linear_attention"] * 30}, "layer_types holds 'linear_attention'"),
        ({"layer_types": ["sliding_attention"] * 30}, "full_attention in every layer"),
        ({"layer_types": ["full_attention"]}, "a list of 30"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers = True"),
        ({"hidden_size": "576"}, "hidden_size = '576'"),
        ({"hidden_size": 577}, "hidden_size = 577 is not a multiple"),
        ({"vocab_size": None}, "vocab_size = None"),
        ({"rms_norm_eps": float("nan")}, "eps = nan"),
        ({"rope_theta": 10**400}, "rope_theta is out of range"),
        ({"rope_theta": 0}, "rope_theta = 0"),
        ({"head_dim": 7}, "d_head = 7"),
        ({"num_key_value_heads": 2}, "n_heads = 9 is not a multiple"),
        ({"attention_bias": "yes"}, "attention_bias = 'yes'"),
    ],
)
def test_what_is_not_supported_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_huggingface(LLAMA | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_layers": 3}, "layers describes 30"),
        ({"d_mlp": 0}, "d_mlp = 0"),
        ({"act_fn": "relu"}, "supported are silu, gelu_tanh"),
        ({"attn_scale": float("inf")}, "attn_scale"),
        ({"norm_offset": float("nan")}, "norm_offset"),
        ({"attn_logit_softcap": 0.0}, "attn_logit_softcap = 0.0"),
        ({"final_logit_softcap": float("inf")}, "final_logit_softcap = inf"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(config_from_huggingface(LLAMA), **fields)
    with pytest.raises(ConfigError, match="at least 1 token"):
        LayerConfig(window=0)


@pytest.mark.parametrize("fields", [LLAMA, GEMMA2, GEMMA])
def test_every_tensor_has_its_own_name_in_each_source(fields: dict[str, Any]) -> None:
    config = config_from_huggingface(fields)
    names = tensor_shapes(config)
    for source_name in (huggingface_name, gguf_name):
        assert len({source_name(name, config) for name in names}) == len(names)
