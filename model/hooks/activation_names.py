"""TransformerLens's short names of activations."""

from __future__ import annotations

import re

_ALIASES = {
    "attn": "pattern",
    "attn_logits": "attn_scores",
    "key": "k",
    "query": "q",
    "value": "v",
    "mlp_pre": "pre",
    "mlp_post": "post",
}
_ATTENTION = ("q", "k", "v", "z", "rot_q", "rot_k", "result", "pattern", "attn_scores")
_MLP = ("pre", "post", "pre_linear")
_PARTS = {"a": "attn", "attention": "attn", "m": "mlp", "b": "", "block": "", "blocks": ""}
_FINAL = ("scale", "normalized")


def get_act_name(name: str, layer: int | None = None, layer_type: str | None = None) -> str:
    """The hook a short name stands for, as `transformer_lens.utils.get_act_name` has it.

    ("pattern", 0) -> blocks.0.attn.hook_pattern; ("scale", 4, "ln1") or "scale4ln1" ->
    blocks.4.ln1.hook_scale; "embed" -> hook_embed; "scale" -> ln_final.hook_scale. A gradient ends
    in "_grad". A full name is returned as it is.
    """
    if layer is None and layer_type is None:
        if "." in name or name.startswith("hook_"):
            return name
        compact = re.match(r"([a-z_]*[a-z])(\d+)([a-z]?.*)", name)
        if compact is not None:
            name, layer, layer_type = compact[1], int(compact[2]), compact[3]
    if name.endswith("_grad"):
        return f"{get_act_name(name.removesuffix('_grad'), layer, layer_type)}_grad"
    name = _ALIASES.get(name, name)
    if name in _ATTENTION:
        layer_type = "attn"
    elif name in _MLP:
        layer_type = "mlp"
    else:
        layer_type = _PARTS.get(layer_type or "", layer_type)
    block = f"blocks.{layer}." if layer is not None else ""
    part = f"{layer_type}." if layer_type else ""
    if layer is None and name in _FINAL:
        return f"ln_final.hook_{name}"
    return f"{block}{part}hook_{name}"
