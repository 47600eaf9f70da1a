"""TransformerLens 3.9 on a checkpoint's own weights.

SmolLM2 is not on its list, so its config is written out here and its weights are put in its layout:
[in, out], one matrix a head. Tensor names: H heads, h d_head, d d_model.
"""

from __future__ import annotations

from typing import Any

import torch
from bitlens.model.weights.checkpoint import Checkpoint
from transformer_lens import HookedTransformer, HookedTransformerConfig


def transformer_lens_llama(
    checkpoint: Checkpoint, kind: type[HookedTransformer] = HookedTransformer, **flags: Any
) -> HookedTransformer:
    """In fp32, with every hook that it puts behind a flag switched on but `split_inputs`'s.

    `flags` replace fields of its config.
    """
    c = checkpoint.config
    fields: dict[str, Any] = {
        "n_layers": c.n_layers,
        "d_model": c.d_model,
        "d_head": c.d_head,
        "n_heads": c.n_heads,
        "n_key_value_heads": c.n_key_value_heads,
        "d_mlp": c.d_mlp,
        "d_vocab": c.d_vocab,
        "n_ctx": c.n_ctx,
        "eps": c.eps,
        "act_fn": "silu",
        "gated_mlp": True,
        "normalization_type": "RMS",
        "final_rms": True,
        "positional_embedding_type": "rotary",
        "rotary_base": int(c.layers[0].rope_theta),
        "rotary_adjacent_pairs": False,  # rotate-half, as Hugging Face orders q and k
        "use_attn_result": True,
        "use_hook_mlp_in": True,
        "use_hook_tokens": True,
        "default_prepend_bos": False,
        "init_weights": False,
        "device": "cpu",
        "dtype": torch.float32,
    }
    model = kind(HookedTransformerConfig(**fields | flags))
    missing, unexpected = model.load_state_dict(_state(checkpoint), strict=False)
    # Biases are zeros from the start; masks and rotary tables are buffers it computes.
    left = [name for name in missing if ".b_" not in name and "._b_" not in name]
    buffers = ("mask", "IGNORE", "rotary_sin", "rotary_cos")
    assert not unexpected
    assert all(name.endswith(buffers) for name in left)
    return model.requires_grad_(False).eval()


def split_inputs(model: HookedTransformer, on: bool) -> None:
    """hook_attn_in and hook_{q,k,v}_input: ln1 then runs once a head, on [b, p, heads, d]."""
    model.cfg.use_attn_in = model.cfg.use_split_qkv_input = on


def _state(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    c = checkpoint.config

    def matrix(name: str) -> torch.Tensor:
        return checkpoint.matrix(f"{name}.weight").dequantize()

    def per_head(name: str) -> torch.Tensor:
        return matrix(name).unflatten(0, (-1, c.d_head)).mT.contiguous()  # [H, d, h]

    embed = matrix("embed")
    unembed = embed if c.tie_embeddings else matrix("unembed")
    state = {
        "embed.W_E": embed,
        "unembed.W_U": unembed.T,
        "ln_final.w": checkpoint.vector("ln_final.weight"),
    }
    for i in range(c.n_layers):
        block = f"blocks.{i}"
        state |= {
            f"{block}.ln1.w": checkpoint.vector(f"{block}.ln1.weight"),
            f"{block}.ln2.w": checkpoint.vector(f"{block}.ln2.weight"),
            f"{block}.attn.W_Q": per_head(f"{block}.attn.q"),
            f"{block}.attn._W_K": per_head(f"{block}.attn.k"),
            f"{block}.attn._W_V": per_head(f"{block}.attn.v"),
            f"{block}.attn.W_O": matrix(f"{block}.attn.o").T.unflatten(0, (-1, c.d_head)),
            f"{block}.mlp.W_gate": matrix(f"{block}.mlp.gate").T,
            f"{block}.mlp.W_in": matrix(f"{block}.mlp.up").T,
            f"{block}.mlp.W_out": matrix(f"{block}.mlp.down").T,
        }
    return state
