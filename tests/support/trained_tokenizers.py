"""Small byte-level BPEs, trained here, and what a GGUF file would say of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tokenizers
from bitlens.model.sources.gguf_tokenizer import tokenizer_from_gguf
from bitlens.model.text.tokenizer import Tokenizer
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "Hello hello world, the theory of the thing isn't 1234 or 56.",
    "don't we'll THEY'RE café žluť 中文 тест 🙂🙂  two  spaces\n\nnew\tline\r\n",
] * 4
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The expressions in Llama 3's and Qwen 2's own tokenizer.json.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")

texts = st.text(
    st.one_of(
        st.sampled_from("abehltHT 0123456789'.\n\t\ré🙂中"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)


def definition(pre: str) -> tokenizers.Tokenizer:
    """A trained byte-level BPE, described the way its model's tokenizer.json does."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = {"llama-bpe": LLAMA3, "qwen2": QWEN2}.get(pre)
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    if split:
        steps = [pre_tokenizers.Split(Regex(split), behavior="isolated"), bare]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif pre == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), byte_level]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    else:
        backend.pre_tokenizer = byte_level
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def metadata_of(backend: tokenizers.Tokenizer, pre: str) -> dict[str, Any]:
    """Its vocabulary and merges as GGUF metadata."""
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3 if t in SPECIAL else 1 for t in tokens]),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def rebuild(metadata: dict[str, Any]) -> Tokenizer:
    """The tokenizer that bitlens makes of GGUF metadata."""
    tokenizer = tokenizer_from_gguf(metadata, 512, "m.gguf")
    assert tokenizer is not None
    return tokenizer
