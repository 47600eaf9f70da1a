"""Small random checkpoints of every architecture, held in memory.

The shapes are awkward on purpose: odd head counts, d_head != d_model / n_heads, windows shorter
than the prompts, tied and untied embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tokenizers
import torch
from bitlens.model.config import LayerConfig, ModelConfig
from bitlens.model.load import load
from bitlens.model.rope.scaling import NTK, Linear, Llama3, LongRope, Yarn
from bitlens.model.text.tokenizer import Tokenizer
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.checkpoint import Checkpoint, Format, StoredMatrix

_SHAPE = {
    "n_layers": 3,
    "d_model": 42,
    "n_heads": 6,
    "n_key_value_heads": 3,
    "d_head": 10,
    "d_mlp": 72,
    "d_vocab": 260,
    "n_ctx": 128,
    "eps": 1e-5,
    "attn_scale": 10**-0.5,
    "tie_embeddings": False,
}


def _config(layers: tuple[LayerConfig, ...] | None = None, **changes: Any) -> ModelConfig:
    fields = _SHAPE | changes
    if layers is None:
        layers = (LayerConfig(),) * fields["n_layers"]
    return ModelConfig(layers=layers, **fields)


CONFIGS: dict[str, ModelConfig] = {
    "llama": _config(
        architecture="llama",
        n_heads=3,
        n_key_value_heads=1,
        tie_embeddings=True,
    ),
    "mistral": _config((LayerConfig(window=5),) * 3, architecture="mistral"),
    "qwen2": _config(
        (LayerConfig(rope_theta=1e6),) * 3, architecture="qwen2", attn_bias=True, eps=1e-6
    ),
    "qwen3": _config(
        architecture="qwen3", qk_norm=True, n_heads=7, n_key_value_heads=7, tie_embeddings=True
    ),
    "gemma2": _config(
        (LayerConfig(window=4), LayerConfig(), LayerConfig(window=4)),
        architecture="gemma2",
        n_heads=3,
        n_key_value_heads=3,
        act_fn="gelu_tanh",
        norm_offset=1.0,
        sandwich_norms=True,
        embed_scale=42**0.5,
        attn_scale=12**-0.5,
        attn_logit_softcap=1.5,  # of scores and logits near 1: both bend
        final_logit_softcap=2.0,
        tie_embeddings=True,
    ),
    "gemma3": _config(
        (
            LayerConfig(window=4),
            LayerConfig(window=4),
            LayerConfig(rope_theta=1e6),
        ),
        architecture="gemma3",
        act_fn="gelu_tanh",
        norm_offset=1.0,
        qk_norm=True,
        sandwich_norms=True,
        embed_scale=42**0.5,
        attn_scale=12**-0.5,
        tie_embeddings=True,
    ),
}
"""A config of every architecture, by name."""

_SCALINGS = (
    Linear(factor=4.0),
    NTK(factor=4.0),
    Yarn(factor=4.0, original_max_position_embeddings=256),
    LongRope(
        short_factor=(1.0, 1.5, 2.0, 3.0, 5.0),
        long_factor=(1.0, 1.5, 2.0, 3.0, 5.0),
        original_max_position_embeddings=256,
        attention_factor=1.25,
    ),
    Llama3(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256
    ),
)
SCALED_ROPE: dict[str, ModelConfig] = {
    "llama-scaled-rope": _config(
        tuple(LayerConfig(rope_scaling=scaling) for scaling in _SCALINGS),
        architecture="llama",
        n_layers=len(_SCALINGS),
    )
}
"""Every RoPE scaling whose frequencies are fixed, one a layer."""


class MemoryReader:
    """A `TensorReader` over tensors that are there already."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = tensors

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(x.shape) for name, x in self.tensors.items()}

    def read(self, name: str) -> StoredMatrix:
        x = self.tensors[name]
        rows = x[None] if x.ndim == 1 else x
        formats = {
            torch.float32: Format.F32,
            torch.bfloat16: Format.BF16,
            torch.float16: Format.F16,
        }
        return StoredMatrix(formats[x.dtype], *rows.shape, rows.contiguous())


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The tensors a checkpoint of this config holds."""
    c, d = config, config.d_model
    kv, q = c.n_key_value_heads * c.d_head, c.n_heads * c.d_head
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (c.d_vocab, d), "ln_final.weight": (d,)}
    if not c.tie_embeddings:
        shapes["unembed.weight"] = (c.d_vocab, d)
    norms = ["ln1", "ln2", *(["ln1_post", "ln2_post"] if c.sandwich_norms else [])]
    linears = {
        "attn.q": (q, d, c.attn_bias),
        "attn.k": (kv, d, c.attn_bias),
        "attn.v": (kv, d, c.attn_bias),
        "attn.o": (d, q, c.attn_out_bias),
        "mlp.gate": (c.d_mlp, d, c.mlp_bias),
        "mlp.up": (c.d_mlp, d, c.mlp_bias),
        "mlp.down": (d, c.d_mlp, c.mlp_bias),
    }
    for i in range(c.n_layers):
        for name in norms:
            shapes[f"blocks.{i}.{name}.weight"] = (d,)
        for name in ("q_norm", "k_norm") if c.qk_norm else ():
            shapes[f"blocks.{i}.attn.{name}.weight"] = (c.d_head,)
        for name, (rows, columns, bias) in linears.items():
            shapes[f"blocks.{i}.{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"blocks.{i}.{name}.bias"] = (rows,)
    return shapes


def random_tensors(config: ModelConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """fp32 weights under bitlens's names, of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        x = torch.randn(shape, generator=generator)
        if "norm" in name or ".ln" in name or name.startswith("ln"):
            x = 1 - config.norm_offset + 0.1 * x
        elif name.endswith("bias"):
            x = 0.1 * x
        elif name != "embed.weight":
            x = x * shape[1] ** -0.5
        elif config.embed_scale != 1:
            x = x / config.embed_scale
        tensors[name] = x
    return tensors


def random_checkpoint(
    architecture: str, seed: int = 0, tokenizer: Tokenizer | None = None, **changes: Any
) -> Checkpoint:
    """A checkpoint of random weights; `changes` replace fields of the architecture's config."""
    config = dataclasses.replace((CONFIGS | SCALED_ROPE)[architecture], **changes)
    reader = MemoryReader(random_tensors(config, seed))
    return Checkpoint(config, tokenizer, f"random {architecture}", reader)


def random_model(
    architecture: str,
    *,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
    changes: Mapping[str, Any] | None = None,
    **options: Any,
) -> HookedTransformer:
    """A model of random weights; `options` go to `bitlens.load`."""
    return load(random_checkpoint(architecture, seed, tokenizer, **(changes or {})), **options)


BOS, EOS, PAD = 256, 257, 258


def byte_tokenizer(chat_template: str | None = None, prepends_bos: bool = False) -> Tokenizer:
    """A token for each byte, ids 0 to 255, then <bos>, <eos> and <pad>: fits every random model."""
    alphabet = _byte_level_alphabet()
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<bos>", "<eos>", "<pad>"])
    return Tokenizer(
        backend,
        bos_id=BOS,
        eos_ids=[EOS],
        pad_id=PAD,
        prepends_bos=prepends_bos,
        chat_template=chat_template,
    )


def _byte_level_alphabet() -> list[str]:
    """GPT-2's character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]
