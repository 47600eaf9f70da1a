"""A random Llama on disk, small enough that verifying every promise on it takes seconds."""

from __future__ import annotations

from pathlib import Path

import torch


def write_tiny_llama(folder: Path) -> Path:
    """Writes a Hugging Face directory of two layers without a tokenizer."""
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        vocab_size=97,
        max_position_embeddings=96,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
