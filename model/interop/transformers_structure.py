"""Finds the modules of each operation in a transformers model, and whether it can be watched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..config import ModelConfig
from ..config_error import ConfigError
from ..ops.sites import operation_at
from ..sources.huggingface_config import config_from_huggingface

FAMILY = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma3ForCausalLM",
)
"""Llama's blocks; what differs is biases, windows, norms of q and k, and all that is Gemma 3's."""

DTYPES = (torch.float32, torch.bfloat16)


def causal_model(model: Any) -> Any:
    """The model of the family that this is, or that lies within what somebody wrapped around it.

    Raises TypeError for another family and for code that hooks cannot watch, naming the module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{type(model).__name__}: expected a transformers model in memory")
    _require_eager_code(model)
    found = [module for module in model.modules() if _kind(module) is not None]
    if len(found) != 1:
        raise TypeError(f"{type(model).__name__}: addresses are known for {', '.join(FAMILY)}")
    return found[0]


def family_config(model: Any) -> ModelConfig:
    """Returns its config as bitlens reads it; raises ValueError for parts without an address."""
    try:
        config = config_from_huggingface(json.loads(model.config.to_json_string(use_diff=False)))
    except ConfigError as error:
        raise ValueError(f"{type(model).__name__}: config: {error}") from error
    if config.final_logit_softcap is not None:
        raise ValueError("final_logit_softcapping: has no address")
    if config.attn_logit_softcap is not None and model.config._attn_implementation == "eager":
        raise ValueError(
            "attn_logit_softcapping: the rounding points of a capped eager attention are not "
            "known; those of one fused call are"
        )
    return config


def has_addresses(model: Any) -> bool:
    """Whether addresses are known for its class itself, and contracts for its dtype."""
    caps = ("final_logit_softcapping", "attn_logit_softcapping")
    capped = any(getattr(model.config, name, None) is not None for name in caps)
    return type(model).__name__ in FAMILY and model.dtype in DTYPES and not capped


def _kind(module: nn.Module) -> str | None:
    """The class of the family that a module's class is, or is derived from."""
    return next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in FAMILY), None)


def _require_eager_code(model: nn.Module) -> None:
    """Compiled code calls no hook that was added after it was compiled."""
    for name, module in model.named_modules():
        if is_compiled(module):
            raise TypeError(
                f"{name or type(model).__name__} is compiled, and compiled code cannot be watched: "
                "pass the model as it was before torch.compile (of a wrapper, ._orig_mod)"
            )


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile wraps it, its call or its forward."""
    called = getattr(module, "_compiled_call_impl", None)
    forward = hasattr(module.forward, "_torchdynamo_orig_callable")
    return called is not None or forward or hasattr(module, "_orig_mod")


def require_contracts(model: Any) -> None:
    """Raises ValueError for settings whose rounding points are not known."""
    if model.dtype not in DTYPES:
        raise ValueError(f"weights in {model.dtype}: contracts exist for float32 and bfloat16")
    if model.training:
        raise ValueError("the model is in training mode: call model.eval()")


def modules_by_address(model: Any) -> dict[str, Any]:
    """The modules whose result is an operation's, by its address.

    Raises TypeError for a linear that is neither a plain nn.Linear nor an adapter around one.
    """
    modules = {"embed": model.model.embed_tokens}
    for i, layer in enumerate(model.model.layers):
        modules |= {f"blocks.{i}.{name}": module for name, module in _block(layer)}
    modules |= {"ln_final": model.model.norm, "unembed": model.lm_head}
    for address, module in modules.items():
        if operation_at(address) == "linear":
            weights_of(address, module)
    return modules


def weights_of(address: str, module: Any) -> Any:
    """The module that holds the weights of an operation: within an adapter, what it adapts."""
    if operation_at(address) != "linear":
        return module
    base = getattr(module, "base_layer", module)
    plain = isinstance(base, nn.Linear) and base.weight.is_floating_point()
    if not plain:
        raise TypeError(
            f"{address} is a {type(module).__name__}, not a plain nn.Linear or an adapter whose "
            "base_layer is one: what its weights are is not known"
        )
    return base


def _block(layer: Any) -> Iterator[tuple[str, Any]]:
    attn, mlp = layer.self_attn, layer.mlp
    for owner, names in ((attn, "qkvo"), (mlp, ("gate", "up", "down"))):
        for name in names:
            if not hasattr(owner, f"{name}_proj"):
                raise TypeError(
                    f"a {type(owner).__name__} without {name}_proj: where its weights are is not "
                    "known"
                )
    yield from norms(layer).items()
    yield "attn.q", attn.q_proj
    yield "attn.k", attn.k_proj
    yield "attn.v", attn.v_proj
    for name in ("q_norm", "k_norm"):
        if hasattr(attn, name):
            yield f"attn.{name}", getattr(attn, name)
    yield "attn.o", attn.o_proj
    yield "mlp.gate", mlp.gate_proj
    yield "mlp.up", mlp.up_proj
    yield "mlp.down", mlp.down_proj


def norms(layer: Any) -> dict[str, Any]:
    """A block's norms by the last part of their addresses."""
    if not hasattr(layer, "pre_feedforward_layernorm"):
        return {"ln1": layer.input_layernorm, "ln2": layer.post_attention_layernorm}
    return {
        "ln1": layer.input_layernorm,
        "ln1_post": layer.post_attention_layernorm,
        "ln2": layer.pre_feedforward_layernorm,
        "ln2_post": layer.post_feedforward_layernorm,
    }
