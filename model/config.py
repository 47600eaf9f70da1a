"""The definition of a dense decoder-only transformer, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .config_error import ConfigError
from .rope.scaling import RopeScaling

ActFn = Literal["silu", "gelu_tanh"]

MAX_LAYERS = 4096
MAX_SIZE = (1 << 31) - 1
"""The largest dimension, context or window: kernels multiply two of them in 64 bits."""

# What a scale, an epsilon or a base may be: a normal fp32 number, since kernels compute with it.
_SMALLEST, _LARGEST = 2.0**-126, 3.4e38

_SIZES = (
    "n_layers",
    "d_model",
    "n_heads",
    "n_key_value_heads",
    "d_head",
    "d_mlp",
    "d_vocab",
    "n_ctx",
)


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """The settings that may differ from layer to layer.

    Attributes:
        window: A token at position t sees positions t - window < j <= t; None sees all j <= t.
        rope_theta: Base of the rotary frequencies, theta^(-2i / d_head).
        rope_scaling: What changes these frequencies to reach beyond the trained context.
    """

    window: int | None = None
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        if self.window is not None and not 1 <= self.window <= MAX_SIZE:
            raise ConfigError(
                f"window = {self.window}: a sliding window holds at least 1 token, "
                f"{MAX_SIZE} at most"
            )
        _require_positive("rope_theta", self.rope_theta)

    @property
    def rope(self) -> tuple[float] | tuple[float, RopeScaling]:
        """The base and, where there is one, the scaling: the last arguments of `Ops.rope`."""
        if self.rope_scaling is None:
            return (self.rope_theta,)
        return self.rope_theta, self.rope_scaling


@dataclass(frozen=True)
class AttentionSettings:
    """The settings that an operation of attention is given beside its operands.

    Attributes:
        scale: Factor on q . k.
        cap: Scores s become cap * tanh(s / cap) before they are masked; None for no cap.
        window: How many keys a query sees; None for all before it.
    """

    scale: float
    cap: float | None
    window: int | None


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and options of a model. Checked when made; raises ConfigError.

    Attributes:
        architecture: "llama", "mistral", "qwen2", "qwen3", "gemma2" or "gemma3": a name for people.
            Nothing is computed from it.
        norm_offset: 1.0 where the norm multiplies by (1 + w), as in Gemma's Hugging Face files.
        folded_norm_offset: 1.0 where the checkpoint holds 1 + w already, as Gemma's GGUF files do.
        attn_bias: Biases on q, k and v; attn_out_bias is the bias on o.
        qk_norm: RMS norm over d_head on q and k before RoPE (Qwen 3, Gemma 3).
        sandwich_norms: A second norm on each sublayer's output (Gemma 2 and 3).
        embed_scale: Factor on the token embedding.
        attn_scale: Factor on q . k, normally 1 / sqrt(d_head).
        attn_logit_softcap: Scores s become cap * tanh(s / cap) before they are masked (Gemma 2).
        final_logit_softcap: The same of the logits, after the unembedding.
    """

    architecture: str
    n_layers: int
    d_model: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    eps: float
    attn_scale: float
    tie_embeddings: bool
    layers: tuple[LayerConfig, ...]
    act_fn: ActFn = "silu"
    norm_offset: float = 0.0
    folded_norm_offset: float = 0.0
    attn_bias: bool = False
    attn_out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sandwich_norms: bool = False
    embed_scale: float = 1.0
    attn_logit_softcap: float | None = None
    final_logit_softcap: float | None = None

    def attention_of(self, layer: LayerConfig) -> AttentionSettings:
        """Returns how scores are made in a layer, and which of them are seen."""
        return AttentionSettings(self.attn_scale, self.attn_logit_softcap, layer.window)

    @property
    def is_capped(self) -> bool:
        """Whether scores or logits are bent by a soft cap."""
        return self.attn_logit_softcap is not None or self.final_logit_softcap is not None

    @property
    def multiplies_by_offset(self) -> bool:
        """Whether norms multiply by 1 + w, wherever the 1 is added."""
        return bool(self.norm_offset or self.folded_norm_offset)

    def __post_init__(self) -> None:
        for field in _SIZES:
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{field} = {value!r}: expected a positive integer")
            if value > MAX_SIZE:
                raise ConfigError(f"{field} = {value}: expected at most {MAX_SIZE}")
        for field in ("eps", "attn_scale", "embed_scale"):
            _require_positive(field, getattr(self, field))
        for field in ("attn_logit_softcap", "final_logit_softcap"):
            if (cap := getattr(self, field)) is not None:
                _require_positive(field, cap)
        if self.n_heads % self.n_key_value_heads:
            raise ConfigError(
                f"n_heads = {self.n_heads} is not a multiple of "
                f"n_key_value_heads = {self.n_key_value_heads}"
            )
        if self.d_head % 2:
            raise ConfigError(f"d_head = {self.d_head}: RoPE rotates pairs, so d_head must be even")
        if len(self.layers) != self.n_layers:
            raise ConfigError(
                f"layers describes {len(self.layers)} layers, n_layers says {self.n_layers}"
            )
        for layer in set(self.layers):
            if layer.rope_scaling is not None:
                layer.rope_scaling.frequencies(layer.rope_theta, self.d_head, self.n_ctx)
        if self.act_fn not in get_args(ActFn):
            raise ConfigError(
                f"act_fn = {self.act_fn!r}: supported are {', '.join(get_args(ActFn))}"
            )
        for field in ("norm_offset", "folded_norm_offset"):
            if not math.isfinite(getattr(self, field)):
                raise ConfigError(f"{field} = {getattr(self, field)}: expected a finite number")


def _require_positive(field: str, value: float) -> None:
    if not _SMALLEST <= value <= _LARGEST:
        raise ConfigError(f"{field} = {value}: expected a finite positive number of fp32's range")
