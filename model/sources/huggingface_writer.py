"""A checkpoint as a Hugging Face directory, in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers

from ..config import ModelConfig
from ..config_error import ConfigError
from ..rope.parameters import huggingface_rope
from ..text.tokenizer import Tokenizer
from ..weights.architectures import ACTIVATIONS, ARCHITECTURES, Architecture, huggingface_name
from ..weights.atomic import write_json, write_tensors
from ..weights.checkpoint import Checkpoint
from .huggingface_config import config_from_huggingface

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}


def write_directory(checkpoint: Checkpoint, folder: str | Path) -> Path:
    """Writes config.json, model.safetensors and the tokenizer's files; returns the folder.

    `bitlens.load` of it has the fingerprint of the checkpoint.

    Raises:
        ConfigError: a model that config.json cannot say, such as a Gemma from a GGUF file, whose
            norms hold 1 + w, and scaled rotary positions but for those that config.json says with
            their trained context (YaRN's, Llama 3's).
        OSError: the disk is full.
    """
    config, folder = checkpoint.config, Path(folder)
    fields = config_fields(config)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name in checkpoint.names():
        is_vector = len(checkpoint.reader.shapes[name]) == 1
        x = checkpoint.vector(name) if is_vector else checkpoint.matrix(name).dequantize()
        tensors[huggingface_name(name, config)] = x.contiguous()
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    if checkpoint.tokenizer is not None:
        _write_tokenizer(checkpoint.tokenizer, folder)
    write_json(folder / "config.json", fields)
    return folder


def config_fields(config: ModelConfig) -> dict[str, Any]:
    """Returns config.json, which reads as this config. Raises ConfigError where none does."""
    arch = next(a for a in ARCHITECTURES if a.name == config.architecture)
    fields: dict[str, Any] = {
        "architectures": [_CLASSES[arch.name]],
        "model_type": arch.model_type,
        "dtype": "float32",
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_key_value_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_mlp,
        "vocab_size": config.d_vocab,
        "max_position_embeddings": config.n_ctx,
        "rms_norm_eps": config.eps,
        "tie_word_embeddings": config.tie_embeddings,
        **{flag: getattr(config, field) for field, flag in arch.bias_fields.items()},
        **_layer_fields(config, arch),
    }
    names = {value: name for name, value in reversed(list(ACTIVATIONS.items()))}
    fields["hidden_activation" if arch.is_gemma else "hidden_act"] = names[config.act_fn]
    if arch.is_gemma:
        scalar = config.attn_scale**-2
        is_whole = abs(scalar - round(scalar)) < 1e-6
        fields |= {
            "query_pre_attn_scalar": round(scalar) if is_whole else scalar,
            "attn_logit_softcapping": config.attn_logit_softcap,
            "final_logit_softcapping": config.final_logit_softcap,
        }
    if config_from_huggingface(fields) != config:
        raise ConfigError(
            f"{arch.name}: this model has a config that no config.json says: scaled rotary "
            "positions, norms that a GGUF file stores as 1 + w, or scales of its own; keep its "
            "weights in safetensors, and load its source again"
        )
    return fields


def _layer_fields(config: ModelConfig, arch: Architecture) -> dict[str, Any]:
    """Windows and rotary bases."""
    sliding = [layer for layer in config.layers if layer.window is not None]
    full = [layer for layer in config.layers if layer.window is None]
    fields: dict[str, Any] = {"rope_theta": (full or sliding)[0].rope_theta}
    if len({layer.rope_scaling for layer in config.layers}) == 1 and config.layers[0].rope_scaling:
        fields["rope_parameters"] = huggingface_rope(config.layers[0])
    if arch.window_rule == "interleaved" and sliding:
        fields["rope_local_base_freq"] = sliding[0].rope_theta
    if arch.window_rule != "none":
        fields["sliding_window"] = sliding[0].window if sliding else None
    if arch.window_rule == "upper":
        fields["use_sliding_window"] = bool(sliding)
    if arch.window_rule not in ("none", "all"):
        fields["layer_types"] = [
            "full_attention" if layer.window is None else "sliding_attention"
            for layer in config.layers
        ]
    return fields


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer.definition)
    if tokenizer.prepends_bos and tokenizer.bos_id is not None:
        token = tokenizer.token(tokenizer.bos_id)
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{token} $A", special_tokens=[(token, tokenizer.bos_id)]
        )
    backend.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": tokenizer.prepends_bos,
        **tokenizer.special_tokens,
    }
    for name, token_id in (("bos_token", tokenizer.bos_id), ("pad_token", tokenizer.pad_id)):
        if token_id is not None:
            settings.setdefault(name, tokenizer.token(token_id))
    write_json(folder / "tokenizer_config.json", settings)
    if tokenizer.chat_template is not None:
        (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    write_json(folder / "generation_config.json", {"eos_token_id": list(tokenizer.eos_ids)})
