"""A model's configuration under TransformerLens's attribute names."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..config import ModelConfig
from ..ops.interface import Ops
from ..text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TransformerLensConfig:
    """The read-only `model.cfg`, with TransformerLens's names and conventions.

    Attributes:
        n_key_value_heads: A number also where every query head has a key head of its own.
        attn_scale: What q . k is divided by; `config.attn_scale` is its reciprocal.
        window_size: The widest sliding window, None without any; `attn_types` says which layers
            slide ("local").
        attn_scores_soft_cap: `config.attn_logit_softcap`; -1.0 for none.
        output_logits_soft_cap: `config.final_logit_softcap`; -1.0 for none.
        rotary_base: Of the first layer; `config.layers` has each one's.
        dtype: Of activations.
    """

    model_name: str
    original_architecture: str
    n_layers: int
    d_model: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    d_vocab_out: int
    n_ctx: int
    eps: float
    act_fn: str
    attn_scale: float
    window_size: int | None
    attn_types: tuple[str, ...]
    attn_scores_soft_cap: float
    output_logits_soft_cap: float
    rotary_base: float
    rotary_dim: int
    use_normalization_before_and_after: bool
    use_qk_norm: bool
    tie_word_embeddings: bool
    default_prepend_bos: bool
    dtype: torch.dtype
    device: torch.device
    normalization_type: str = "RMS"
    final_rms: bool = True
    positional_embedding_type: str = "rotary"
    rotary_adjacent_pairs: bool = False
    gated_mlp: bool = True
    attn_only: bool = False
    use_attn_scale: bool = True


def transformer_lens_config(
    config: ModelConfig, ops: Ops, tokenizer: Tokenizer | None, name: str
) -> TransformerLensConfig:
    """The configuration as TransformerLens would describe it."""
    windows = [layer.window for layer in config.layers]
    return TransformerLensConfig(
        model_name=name,
        original_architecture=config.architecture,
        n_layers=config.n_layers,
        d_model=config.d_model,
        n_heads=config.n_heads,
        n_key_value_heads=config.n_key_value_heads,
        d_head=config.d_head,
        d_mlp=config.d_mlp,
        d_vocab=config.d_vocab,
        d_vocab_out=config.d_vocab,
        n_ctx=config.n_ctx,
        eps=config.eps,
        act_fn={"gelu_tanh": "gelu_pytorch_tanh"}.get(config.act_fn, config.act_fn),
        attn_scale=1 / config.attn_scale,
        window_size=max((width for width in windows if width is not None), default=None),
        attn_types=tuple("global" if width is None else "local" for width in windows),
        attn_scores_soft_cap=config.attn_logit_softcap or -1.0,
        output_logits_soft_cap=config.final_logit_softcap or -1.0,
        rotary_base=config.layers[0].rope_theta,
        rotary_dim=config.d_head,
        use_normalization_before_and_after=config.sandwich_norms,
        use_qk_norm=config.qk_norm,
        tie_word_embeddings=config.tie_embeddings,
        default_prepend_bos=tokenizer is not None and tokenizer.prepends_bos,
        dtype=ops.policy.activation,
        device=ops.device,
    )
