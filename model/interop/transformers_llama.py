"""A checkpoint's own weights in Hugging Face's Llama, whatever file they came in."""

from __future__ import annotations

from typing import Any

import torch

from ..rope.parameters import huggingface_rope
from ..weights.architectures import huggingface_name
from ..weights.checkpoint import Checkpoint


def transformers_llama(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """`transformers.LlamaForCausalLM` with eager attention and weights in `dtype`, for inference.

    Only parameters are converted: buffers, such as the rotary frequencies, keep the precision that
    `from_pretrained` gives them. Raises as `empty_llama` and `fill`.
    """
    return fill(empty_llama(checkpoint), checkpoint, dtype)


def empty_llama(checkpoint: Checkpoint) -> Any:
    """The model without its weights.

    Raises ValueError for another architecture or a RoPE scaling that transformers has no name for,
    RuntimeError where transformers is not installed.
    """
    c = checkpoint.config
    if c.architecture != "llama":
        raise ValueError(f"{checkpoint.name}: a Llama is needed, this is {c.architecture}")
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise RuntimeError("this needs transformers: pip install 'bitlens[interop]'") from error
    config = transformers.LlamaConfig(
        vocab_size=c.d_vocab,
        hidden_size=c.d_model,
        intermediate_size=c.d_mlp,
        num_hidden_layers=c.n_layers,
        num_attention_heads=c.n_heads,
        num_key_value_heads=c.n_key_value_heads,
        head_dim=c.d_head,
        max_position_embeddings=c.n_ctx,
        rms_norm_eps=c.eps,
        rope_parameters=huggingface_rope(c.layers[0]),
        tie_word_embeddings=c.tie_embeddings,
        attention_bias=c.attn_bias,
        mlp_bias=c.mlp_bias,
    )
    factory: Any = transformers.AutoModelForCausalLM
    return factory.from_config(config, attn_implementation="eager")


def fill(model: Any, checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """Gives it the checkpoint's weights; ValueError if they are not what it needs."""
    c = checkpoint.config
    weights = {
        huggingface_name(name, c): _read(checkpoint, name).to(dtype) for name in checkpoint.names()
    }
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    if unexpected or set(missing) - ({"lm_head.weight"} if c.tie_embeddings else set()):
        raise ValueError(f"{checkpoint.name}: missing {missing}, unexpected {unexpected}")
    return model.requires_grad_(False).eval()


def _read(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    if len(checkpoint.reader.shapes[name]) == 1:
        return checkpoint.vector(name)
    return checkpoint.matrix(name).dequantize()
