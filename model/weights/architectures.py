"""The supported architectures as data: what each fixes, what it leaves to the checkpoint, and how
Hugging Face and GGUF files name its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config import ActFn, ModelConfig
from ..config_error import ConfigError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table.

    Attributes:
        model_type: `model_type` in a Hugging Face config.json.
        gguf_name: `general.architecture` in a GGUF file.
        defaults: What Hugging Face's config class assumes for fields config.json leaves out.
        fixed: ModelConfig fields that the architecture decides, whatever the checkpoint says.
        bias_fields: ModelConfig bias field -> the config.json flag that switches it on.
        window_rule: Which layers slide a window: "none", "all" (Mistral), those from
            `max_window_layers` on ("upper", Qwen), all but each second ("alternating", Gemma 2), or
            all but each `sliding_window_pattern`-th, with a RoPE base of their own ("interleaved",
            Gemma 3). `layer_types` overrides the last three.
        gguf_permuted: llama.cpp reorders the rows of q and k, from rotate-half to interleaved RoPE.
    """

    name: str
    model_type: str
    gguf_name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    bias_fields: Mapping[str, str] = field(default_factory=dict)
    window_rule: Literal["none", "all", "upper", "alternating", "interleaved"] = "none"
    gguf_permuted: bool = False

    @property
    def is_gemma(self) -> bool:
        """Norms by (1 + w), a scaled embedding, tanh-GELU, `query_pre_attn_scalar`, soft caps."""
        return self.window_rule in ("alternating", "interleaved")


# What the config classes of all supported architectures assume.
COMMON_DEFAULTS: Mapping[str, Any] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "max_window_layers": 28,
    "sliding_window": 4096,
}

_QWEN = {"max_position_embeddings": 32768, "hidden_act": "silu"}

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="llama",
        model_type="llama",
        gguf_name="llama",
        defaults={"max_position_embeddings": 2048, "hidden_act": "silu"},
        bias_fields={
            "attn_bias": "attention_bias",
            "attn_out_bias": "attention_bias",
            "mlp_bias": "mlp_bias",
        },
        gguf_permuted=True,
    ),
    Architecture(
        name="mistral",
        model_type="mistral",
        gguf_name="mistral",  # current converters write "llama"; both permute
        defaults={
            "max_position_embeddings": 131072,
            "hidden_act": "silu",
            "num_key_value_heads": 8,
        },
        window_rule="all",
        gguf_permuted=True,
    ),
    Architecture(
        name="qwen2",
        model_type="qwen2",
        gguf_name="qwen2",
        defaults=_QWEN | {"num_key_value_heads": 32},
        fixed={"attn_bias": True},
        window_rule="upper",
    ),
    Architecture(
        name="qwen3",
        model_type="qwen3",
        gguf_name="qwen3",
        defaults=_QWEN | {"num_key_value_heads": 32, "head_dim": 128},
        fixed={"qk_norm": True},
        bias_fields={"attn_bias": "attention_bias", "attn_out_bias": "attention_bias"},
        window_rule="upper",
    ),
    Architecture(
        name="gemma2",
        model_type="gemma2",
        gguf_name="gemma2",
        defaults={
            "max_position_embeddings": 8192,
            "hidden_activation": "gelu_pytorch_tanh",
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "tie_word_embeddings": True,
        },
        fixed={"sandwich_norms": True},
        bias_fields={"attn_bias": "attention_bias", "attn_out_bias": "attention_bias"},
        window_rule="alternating",
    ),
    Architecture(
        name="gemma3",
        model_type="gemma3_text",
        gguf_name="gemma3",
        defaults={
            "max_position_embeddings": 131072,
            "hidden_activation": "gelu_pytorch_tanh",
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "sliding_window_pattern": 6,
            "tie_word_embeddings": True,
        },
        fixed={"qk_norm": True, "sandwich_norms": True},
        bias_fields={"attn_bias": "attention_bias", "attn_out_bias": "attention_bias"},
        window_rule="interleaved",
    ),
)

# Hugging Face's and GGUF's names for the activation functions.
ACTIVATIONS: Mapping[str, ActFn] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
}

_PROJECTIONS = {
    # canonical: (Hugging Face, GGUF)
    "attn.q": ("self_attn.q_proj", "attn_q"),
    "attn.k": ("self_attn.k_proj", "attn_k"),
    "attn.v": ("self_attn.v_proj", "attn_v"),
    "attn.o": ("self_attn.o_proj", "attn_output"),
    "mlp.gate": ("mlp.gate_proj", "ffn_gate"),
    "mlp.up": ("mlp.up_proj", "ffn_up"),
    "mlp.down": ("mlp.down_proj", "ffn_down"),
    "attn.q_norm": ("self_attn.q_norm", "attn_q_norm"),
    "attn.k_norm": ("self_attn.k_norm", "attn_k_norm"),
    "ln1": ("input_layernorm", "attn_norm"),
}
_PLAIN_NORMS = {"ln2": ("post_attention_layernorm", "ffn_norm")}
_SANDWICH_NORMS = {
    "ln1_post": ("post_attention_layernorm", "post_attention_norm"),
    "ln2": ("pre_feedforward_layernorm", "ffn_norm"),
    "ln2_post": ("post_feedforward_layernorm", "post_ffw_norm"),
}
_OUTSIDE_BLOCKS = {
    "embed": ("model.embed_tokens", "token_embd"),
    "ln_final": ("model.norm", "output_norm"),
    "unembed": ("lm_head", "output"),
}


def by_model_type(model_type: object) -> Architecture:
    """The architecture a config.json names. Raises ConfigError listing the known ones."""
    return _find("model_type", model_type, {a.model_type: a for a in ARCHITECTURES})


def by_gguf_name(name: object) -> Architecture:
    """The architecture a GGUF file names. Raises ConfigError listing the known ones."""
    return _find("general.architecture", name, {a.gguf_name: a for a in ARCHITECTURES})


def huggingface_name(name: str, config: ModelConfig) -> str:
    """Returns a canonical tensor's name in a Hugging Face checkpoint."""
    return _source_name(name, config, 0, "model.layers.{}.")


def gguf_name(name: str, config: ModelConfig) -> str:
    """Returns a canonical tensor's name in a GGUF file."""
    return _source_name(name, config, 1, "blk.{}.")


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor the model needs, by canonical name, with the shape it must have."""
    d, m = config.d_model, config.d_mlp
    q, kv = config.n_heads * config.d_head, config.n_key_value_heads * config.d_head
    linears: dict[str, tuple[int, int, bool]] = {  # outputs, inputs, has a bias
        "attn.q": (q, d, config.attn_bias),
        "attn.k": (kv, d, config.attn_bias),
        "attn.v": (kv, d, config.attn_bias),
        "attn.o": (d, q, config.attn_out_bias),
        "mlp.gate": (m, d, config.mlp_bias),
        "mlp.up": (m, d, config.mlp_bias),
        "mlp.down": (d, m, config.mlp_bias),
    }
    norms = {"ln1": d, "ln2": d}
    if config.sandwich_norms:
        norms |= {"ln1_post": d, "ln2_post": d}
    if config.qk_norm:
        norms |= {"attn.q_norm": config.d_head, "attn.k_norm": config.d_head}

    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (config.d_vocab, d)}
    for i in range(config.n_layers):
        shapes |= {f"blocks.{i}.{name}.weight": (size,) for name, size in norms.items()}
        for name, (outputs, inputs, has_bias) in linears.items():
            shapes[f"blocks.{i}.{name}.weight"] = (outputs, inputs)
            if has_bias:
                shapes[f"blocks.{i}.{name}.bias"] = (outputs,)
    shapes["ln_final.weight"] = (d,)
    if not config.tie_embeddings:
        shapes["unembed.weight"] = (config.d_vocab, d)
    return shapes


def _find(field_name: str, value: object, table: Mapping[str, Architecture]) -> Architecture:
    if isinstance(value, str) and value in table:
        return table[value]
    raise ConfigError(f"{field_name} = {value!r}: supported are {', '.join(table)}")


def _source_name(name: str, config: ModelConfig, column: int, block_prefix: str) -> str:
    module, _, kind = name.rpartition(".")
    if not module.startswith("blocks."):
        return f"{_OUTSIDE_BLOCKS[module][column]}.{kind}"
    _, layer, part = module.split(".", 2)
    norms = _SANDWICH_NORMS if config.sandwich_norms else _PLAIN_NORMS
    return f"{block_prefix.format(layer)}{(_PROJECTIONS | norms)[part][column]}.{kind}"
