"""Small models of transformers."""

from __future__ import annotations

from typing import Any

import torch
import transformers

TOKENS = torch.randint(97, (60,), generator=torch.Generator().manual_seed(0))
_SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 96,
    "initializer_range": 0.2,
}


def llama(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """Returns a random eager Llama of two layers; `changes` go into its config."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**_SHAPE | changes)
    factory: Any = transformers.AutoModelForCausalLM
    model = factory.from_config(config, attn_implementation="eager", dtype=dtype)
    return model.requires_grad_(False).eval()
