"""The number of values that a hook holds at each position."""

from __future__ import annotations

from ..config import ModelConfig
from .registry import has_gradient, has_key_axis


def hook_width(config: ModelConfig, name: str) -> int:
    """Returns the values a position has at a hook of the model, heads flattened.

    Raises ValueError for a hook that holds token ids, or a value for every key.
    """
    if has_key_axis(name) or not has_gradient(name):
        raise ValueError(f"{name} has no row of a fixed width at each position")
    part = name.split(".", 2)[2] if name.startswith("blocks.") else name
    if part.startswith("attn.") or part.endswith("_input") or part == "hook_attn_in":
        return _heads(config, part) * _per_head(config, part)
    if part.endswith("hook_scale"):
        return 1
    if part in ("mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post"):
        return config.d_mlp
    return config.d_vocab if part == "unembed.hook_out" else config.d_model


def _heads(config: ModelConfig, part: str) -> int:
    of_keys = part.startswith(("attn.k_norm", "attn.hook_k", "attn.hook_rot_k", "attn.hook_v"))
    if of_keys or part in ("hook_k_input", "hook_v_input"):
        return config.n_key_value_heads
    return config.n_heads


def _per_head(config: ModelConfig, part: str) -> int:
    if part.endswith("hook_scale"):
        return 1
    return config.d_head if part.startswith("attn.") and "result" not in part else config.d_model
