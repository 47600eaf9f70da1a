"""transformers' Gemma 3 with a checkpoint's own weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import transformers
from bitlens.model.config import ModelConfig
from bitlens.model.weights.architectures import huggingface_name
from bitlens.model.weights.checkpoint import Checkpoint


def gemma3_config(config: ModelConfig) -> transformers.Gemma3TextConfig:
    windows = {layer.window for layer in config.layers} - {None}
    thetas = {layer.window is None: layer.rope_theta for layer in config.layers}
    return transformers.Gemma3TextConfig(
        vocab_size=config.d_vocab,
        hidden_size=config.d_model,
        intermediate_size=config.d_mlp,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_key_value_heads,
        head_dim=config.d_head,
        max_position_embeddings=config.n_ctx,
        rms_norm_eps=config.eps,
        query_pre_attn_scalar=round(config.attn_scale**-2),
        sliding_window=windows.pop(),
        layer_types=[
            "sliding_attention" if layer.window else "full_attention" for layer in config.layers
        ],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": thetas[False]},
            "full_attention": {"rope_type": "default", "rope_theta": thetas[True]},
        },
    )


def huggingface_weights(
    checkpoint: Checkpoint, dtype: torch.dtype, own: Mapping[str, torch.Tensor] = {}
) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors under Hugging Face's names.

    Norm weights come from the file, which holds 1 + w; Hugging Face's hold w. Raises ValueError if
    1 + w is not what the file holds.

    Args:
        own: Matrices by bitlens's names, already in `dtype`; others are read.
    """
    weights = {}
    for name, shape in checkpoint.reader.shapes.items():
        if len(shape) == 2:
            w = own[name].detach() if name in own else checkpoint.matrix(name).dequantize()
        else:
            stored = checkpoint.vector(name)
            w = stored.to(dtype) - 1
            if not torch.equal((1 + w).float(), stored):
                raise ValueError(f"{name}: w is no number of {dtype}")
        weights[huggingface_name(name, checkpoint.config)] = w.to(dtype)
    return weights


def gemma3(
    config: ModelConfig, weights: Mapping[str, torch.Tensor]
) -> transformers.Gemma3ForCausalLM:
    """The model with eager attention; made and run under `InDouble` it computes in fp64."""
    theirs = gemma3_config(config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(theirs, attn_implementation="eager")
    inner = model.model
    inner.rotary_emb = type(inner.rotary_emb)(theirs)
    # What torch.tensor makes of the factor in fp32; under `InDouble` it would stay unrounded.
    inner.embed_tokens.embed_scale = torch.tensor(config.embed_scale)
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    return model.requires_grad_(False).eval()
