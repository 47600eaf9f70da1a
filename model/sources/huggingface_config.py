"""A Hugging Face config.json -> ModelConfig.

The fields read are those that transformers' own class for the model type reads. A field that asks
for arithmetic bitlens does not have raises ConfigError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..config import MAX_LAYERS, MAX_SIZE, LayerConfig, ModelConfig
from ..config_error import ConfigError
from ..rope.parameters import context_reached, is_nested, scaling_from_huggingface
from ..rope.scaling import RopeScaling
from ..weights.architectures import ACTIVATIONS, COMMON_DEFAULTS, Architecture, by_model_type

# Fields that change the arithmetic in ways bitlens does not have, and the values that ask for none.
_REFUSED: Mapping[str, tuple[object, ...]] = {
    "quantization_config": (None,),
    "use_bidirectional_attention": (None, False),
    "num_local_experts": (None, 0),
    "num_experts": (None, 0),
    "partial_rotary_factor": (None, 1, 1.0),
}
_SOFT_CAPS: Mapping[str, str] = {
    "attn_logit_softcap": "attn_logit_softcapping",
    "final_logit_softcap": "final_logit_softcapping",
}


def config_from_huggingface(fields: Mapping[str, Any]) -> ModelConfig:
    """Raises ConfigError naming the field, its value and what is supported."""
    arch = by_model_type(fields.get("model_type"))
    refused = dict(_REFUSED)
    if not arch.is_gemma:
        refused |= dict.fromkeys(_SOFT_CAPS.values(), (None,))
    for name, harmless in refused.items():
        if fields.get(name) not in harmless:
            raise ConfigError(f"{name} = {fields[name]!r} is not supported: remove it or set null")
    values = {**COMMON_DEFAULTS, **arch.defaults, **fields}
    n_heads = _integer(values, "num_attention_heads")
    d_model = _integer(values, "hidden_size")
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = n_heads
    if values.get("head_dim") is None:
        if d_model % n_heads:
            raise ConfigError(
                f"hidden_size = {d_model} is not a multiple of num_attention_heads = {n_heads}; "
                "give head_dim"
            )
        values["head_dim"] = d_model // n_heads
    d_head = _integer(values, "head_dim")
    gemma = arch.is_gemma
    q_scalar = _number(values, "query_pre_attn_scalar") if gemma else float(d_head)
    if q_scalar <= 0:
        raise ConfigError(f"query_pre_attn_scalar = {q_scalar}: expected a positive number")
    options: dict[str, Any] = {
        name: _flag(fields, flag, False) for name, flag in arch.bias_fields.items()
    }
    if gemma:
        options |= {"norm_offset": 1.0, "embed_scale": float(np.float32(math.sqrt(d_model)))}
        options |= {field: _soft_cap(values, name) for field, name in _SOFT_CAPS.items()}
    layers = _layers(values, arch)
    return ModelConfig(
        architecture=arch.name,
        n_layers=_integer(values, "num_hidden_layers"),
        d_model=d_model,
        n_heads=n_heads,
        n_key_value_heads=_integer(values, "num_key_value_heads"),
        d_head=d_head,
        d_mlp=_integer(values, "intermediate_size"),
        d_vocab=_integer(values, "vocab_size"),
        n_ctx=context_reached(
            _integer(values, "max_position_embeddings"),
            layers,
            is_trained=arch.window_rule != "interleaved",
        ),
        eps=_number(values, "rms_norm_eps"),
        attn_scale=q_scalar**-0.5,
        tie_embeddings=_flag(values, "tie_word_embeddings", False),
        layers=layers,
        act_fn=ACTIVATIONS[_activation(values, "hidden_activation" if gemma else "hidden_act")],
        **arch.fixed,
        **options,
    )


def _layers(values: Mapping[str, Any], arch: Architecture) -> tuple[LayerConfig, ...]:
    n_layers = _integer(values, "num_hidden_layers")
    if n_layers > MAX_LAYERS:
        raise ConfigError(f"num_hidden_layers = {n_layers}: at most {MAX_LAYERS} are supported")
    types = _layer_types(values, arch, n_layers)
    kinds: dict[str, LayerConfig] = {}
    for kind in set(types):
        sliding = kind == "sliding_attention"
        theta, scaling = _rope(values, kind, arch)
        kinds[kind] = LayerConfig(
            window=_integer(values, "sliding_window") if sliding else None,
            rope_theta=theta,
            rope_scaling=scaling,
        )
    return tuple(kinds[kind] for kind in types)


def _layer_types(values: Mapping[str, Any], arch: Architecture, n_layers: int) -> list[str]:
    """ "full_attention" or "sliding_attention" for every layer."""
    derived = _derived_layer_types(values, arch, n_layers)
    given = values.get("layer_types")
    if given is None:
        return derived
    known = ("full_attention", "sliding_attention")
    if not isinstance(given, list) or len(given) != n_layers:
        raise ConfigError(f"layer_types = {given!r}: expected a list of {n_layers} layer types")
    for kind in given:
        if kind not in known:
            raise ConfigError(f"layer_types holds {kind!r}: supported are {', '.join(known)}")
    # transformers' Llama and Mistral ignore the field, so it may only repeat what they do.
    if arch.window_rule in ("none", "all") and given != derived:
        raise ConfigError(f"layer_types = {given!r}: {arch.name} has {derived[0]} in every layer")
    return list(given)


def _derived_layer_types(values: Mapping[str, Any], arch: Architecture, n_layers: int) -> list[str]:
    """The layer types where config.json does not list them."""
    if values["sliding_window"] is None or arch.window_rule == "none":
        sliding = [False] * n_layers
    elif arch.window_rule == "all":
        sliding = [True] * n_layers
    elif arch.window_rule == "upper":
        first = _integer(values, "max_window_layers", least=0)
        used = _flag(values, "use_sliding_window", False)
        sliding = [used and i >= first for i in range(n_layers)]
    elif arch.window_rule == "alternating":
        sliding = [i % 2 == 0 for i in range(n_layers)]
    else:
        every = _integer(values, "sliding_window_pattern")
        sliding = [(i + 1) % every != 0 for i in range(n_layers)]
    return ["sliding_attention" if s else "full_attention" for s in sliding]


def _rope(
    values: Mapping[str, Any], kind: str, arch: Architecture
) -> tuple[float, RopeScaling | None]:
    """Base and scaling for one layer type, from `rope_parameters` (transformers 5) or from
    `rope_theta` and `rope_scaling`, with transformers' precedence."""
    interleaved = arch.window_rule == "interleaved"
    local = interleaved and kind == "sliding_attention"
    parameters, where = values.get("rope_parameters") or {}, "rope_parameters"
    nested = isinstance(parameters, Mapping) and is_nested(parameters)
    if nested:
        parameters, where = parameters.get(kind) or {}, f"rope_parameters.{kind}"
    elif local:
        parameters = {}
    older = values.get("rope_scaling")
    if older and not local:
        both = interleaved and isinstance(older, Mapping) and isinstance(parameters, Mapping)
        parameters, where = {**parameters, **older} if both else older, "rope_scaling"
    trained = values.get("original_max_position_embeddings")
    if trained is not None and not nested and isinstance(parameters, Mapping):
        parameters = {**parameters, "original_max_position_embeddings": trained}
    n_ctx = _integer(values, "max_position_embeddings")
    scaling = scaling_from_huggingface(parameters, where, n_ctx)
    if parameters.get("rope_theta") is not None:
        return _number(parameters, "rope_theta"), scaling
    return _number(values, "rope_local_base_freq" if local else "rope_theta"), scaling


def _activation(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise ConfigError(f"{name} = {value!r}: supported are {', '.join(ACTIVATIONS)}")
    return value


def _integer(values: Mapping[str, Any], name: str, least: int = 1) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_SIZE:
        raise ConfigError(f"{name} = {value!r}: expected an integer from {least} to {MAX_SIZE}")
    return value


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} = {value!r}: expected a number")
    if abs(value) > 1e300:
        raise ConfigError(f"{name} is out of range")
    return float(value)


def _soft_cap(values: Mapping[str, Any], name: str) -> float | None:
    if values.get(name) is None:
        return None
    cap = _number(values, name)
    if cap <= 0:
        raise ConfigError(f"{name} = {cap}: expected null or a positive number")
    return cap


def _flag(values: Mapping[str, Any], name: str, default: bool) -> bool:
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{name} = {value!r}: expected true or false")
    return value
