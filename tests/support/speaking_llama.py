"""A random Llama of two layers with a byte-level tokenizer: an audit of it takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def write_speaking_llama(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Writes a Hugging Face directory, `changes` being of its config. Equal seeds give equal
    weights."""
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(alphabet)}
    values: dict[str, Any] = {
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 96,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 0,
    }
    config = transformers.LlamaConfig(**(values | changes))
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
