"""Makes the graphs beside this file with circuit-tracer itself.

It cannot share an environment with bitlens (transformers at most 4.57.3), so its edges are
committed. In an environment of its own:

    pip install torch==2.13.0 "transformers<=4.57.3" transformer-lens==3.2.1 nnsight==0.6.1
    git clone https://github.com/decoderesearch/circuit-tracer
    git -C circuit-tracer checkout 4bb8c0e
    PYTHONPATH=circuit-tracer python tests/golden/circuit_tracer/make.py

PyPI's circuit-tracer is another project's. Each case is a folder: a random model as Hugging Face
saves it, transcoders in circuit-tracer's files, and graph.safetensors with what it made of them.
feature_schema.json says what its front end reads of a feature.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from circuit_tracer import ReplacementModel
from circuit_tracer.attribution.attribute_transformerlens import attribute
from circuit_tracer.frontend.feature_models import Model
from circuit_tracer.transcoder.cross_layer_transcoder import load_clt
from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder_set
from safetensors.torch import save_file
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import (
    convert_gemma_weights,
    convert_llama_weights,
)
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
TOKENS = [1, 7, 3, 11, 7]
LAYERS, D, F, K = 3, 16, 16, 4
SHAPE = {
    "vocab_size": 32,
    "hidden_size": D,
    "intermediate_size": 28,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "attn_implementation": "eager",
}
TRANSFORMER_LENS = {
    "n_layers": LAYERS,
    "d_model": D,
    "n_ctx": 64,
    "d_head": 6,
    "n_heads": 4,
    "n_key_value_heads": 2,
    "d_mlp": 28,
    "d_vocab": 32,
    "rotary_dim": 6,
    "positional_embedding_type": "rotary",
    "normalization_type": "RMS",
    "final_rms": True,
    "gated_mlp": True,
    "dtype": torch.float32,
    "device": "cpu",
}


def llama() -> tuple[Any, HookedTransformerConfig, dict[str, torch.Tensor]]:
    """Returns a random Llama, TransformerLens's config of it and its weights."""
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, rope_theta=1e4, tie_word_embeddings=False))
    scrambled(model)
    cfg = HookedTransformerConfig(
        **TRANSFORMER_LENS,
        model_name="llama",
        act_fn="silu",
        eps=1e-6,
        rotary_base=10000,
        original_architecture="LlamaForCausalLM",
    )
    return model, cfg, convert_llama_weights(model, cfg)


def gemma2() -> tuple[Any, HookedTransformerConfig, dict[str, torch.Tensor]]:
    """Returns a random Gemma 2: norms after attention and MLP, windows, soft caps."""
    config = Gemma2Config(
        **SHAPE,
        sliding_window=4,
        query_pre_attn_scalar=6,
        attn_logit_softcapping=4.0,
        final_logit_softcapping=5.0,
    )
    model = Gemma2ForCausalLM(config)
    scrambled(model)
    cfg = HookedTransformerConfig(
        **TRANSFORMER_LENS,
        model_name="gemma-2",
        act_fn="gelu_pytorch_tanh",
        eps=1e-6,
        rotary_base=10000,
        attn_scale=6**0.5,
        use_local_attn=True,
        window_size=4,
        attn_types=["local", "global", "local"],
        attn_scores_soft_cap=4.0,
        output_logits_soft_cap=5.0,
        use_normalization_before_and_after=True,
        original_architecture="Gemma2ForCausalLM",
    )
    return model, cfg, convert_gemma_weights(model, cfg)


def scrambled(model: Any) -> None:
    """Gives every weight, norms' and biases' too, a random value that matters."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) * (0.5 if p.dim() == 1 else 0.25)
    model.eval()


def weights(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator) / shape[-1] ** 0.5


def per_layer(folder: Path, kind: str, read: str, write: str) -> Any:
    """Writes a transcoder a layer, and returns the set as circuit-tracer reads it."""
    generator = torch.Generator().manual_seed(1)
    described: dict[str, Any] = {
        "model_name": "tiny",
        "model_kind": "transcoder_set",
        "feature_input_hook": read,
        "feature_output_hook": write,
        "scan": "tiny",
    }
    if kind.startswith("topk"):
        described |= {"activation": "topk", "k": K}
    for layer in range(LAYERS):
        tensors = {
            "W_enc": weights(generator, F, D),
            "W_dec": weights(generator, F, D),
            "b_enc": weights(generator, F) + 0.1,
            "b_dec": weights(generator, D),
        }
        if kind == "jumprelu":
            threshold = torch.rand(F, generator=generator)
            tensors["activation_function.threshold"] = threshold
        if kind.endswith("skip"):
            tensors["W_skip"] = weights(generator, D, D)
        save_file(tensors, folder / f"layer_{layer}.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump(described))
    return load_transcoder_set(
        {i: str(folder / f"layer_{i}.safetensors") for i in range(LAYERS)},
        "tiny",
        read,
        write,
        activation=described.get("activation"),
        k=described.get("k"),
        lazy_encoder=False,
        lazy_decoder=False,
    )


def cross_layer(folder: Path, kind: str, read: str, write: str) -> Any:
    """Writes a cross-layer transcoder, and returns it as circuit-tracer reads it."""
    generator = torch.Generator().manual_seed(2)
    for i in range(LAYERS):
        tensors = {
            f"W_enc_{i}": weights(generator, F, D),
            f"b_enc_{i}": weights(generator, F),
            f"b_dec_{i}": weights(generator, D),
        }
        if kind == "jumprelu":
            tensors[f"threshold_{i}"] = torch.rand(F, generator=generator)
        save_file(tensors, folder / f"W_enc_{i}.safetensors")
        decoders = {f"W_dec_{i}": weights(generator, F, LAYERS - i, D)}
        save_file(decoders, folder / f"W_dec_{i}.safetensors")
    described = {
        "model_name": "tiny",
        "model_kind": "cross_layer_transcoder",
        "feature_input_hook": read,
        "feature_output_hook": write,
        "scan": "tiny",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(described))
    return load_clt(str(folder), read, write, "tiny", dtype=torch.float32, lazy_decoder=False)


CASES = {
    "llama_topk_skip": (llama, per_layer, "topk_skip", "mlp.hook_in", "mlp.hook_out"),
    "llama_jumprelu": (llama, per_layer, "jumprelu", "ln2.hook_normalized", "hook_mlp_out"),
    "llama_cross_layer": (llama, cross_layer, "jumprelu", "hook_resid_mid", "hook_mlp_out"),
    "gemma2_relu": (gemma2, per_layer, "relu", "mlp.hook_in", "hook_mlp_out"),
    "gemma2_cross_layer": (gemma2, cross_layer, "relu", "hook_resid_mid", "hook_mlp_out"),
}
"""Model, transcoders, their kind, what they read and write."""


def main() -> None:
    schema = json.dumps(Model.model_json_schema(), indent=1)
    (HERE / "feature_schema.json").write_text(schema + "\n")
    for name, (model_of, transcoders_of, kind, read, write) in CASES.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "transcoders").mkdir(parents=True)
        model, cfg, converted = model_of()
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        traced = ReplacementModel.from_config(
            cfg,
            transcoders_of(folder / "transcoders", kind, read, write),
            backend="transformerlens",
        )
        load(traced, converted)
        traced.tokenizer = SimpleNamespace(
            all_special_ids=TOKENS[:1], decode=str, padding_side="right", vocab_size=32
        )
        with torch.no_grad():
            expected = model(torch.tensor([TOKENS])).logits
            found = traced(torch.tensor([TOKENS]))
        difference = float((expected - found).abs().max())
        assert difference < 1e-4, f"{name}: TransformerLens is not transformers: {difference}"
        graph = attribute(torch.tensor(TOKENS), traced, batch_size=8)
        save_file(
            {
                "tokens": graph.input_tokens,
                "active_features": graph.active_features.contiguous(),
                "activations": graph.activation_values.contiguous(),
                "logit_tokens": graph.logit_tokens.contiguous(),
                "logit_probabilities": graph.logit_probabilities.contiguous(),
                "adjacency": graph.adjacency_matrix.to_sparse().coalesce().to_dense().contiguous(),
            },
            folder / "graph.safetensors",
        )
        print(name, len(graph.active_features), "features; logits differ by", difference)


def load(traced: Any, converted: dict[str, torch.Tensor]) -> None:
    """Puts the weights into circuit-tracer's model, whose MLPs and unembedding are wrapped."""
    renamed = {}
    for key, value in converted.items():
        key = key.replace(".mlp.", ".mlp.old_mlp.").replace("unembed.", "unembed.old_unembed.")
        renamed[key] = value
    missing, unexpected = traced.load_state_dict(renamed, strict=False)
    assert not unexpected, unexpected
    learned = {name for name, _ in traced.named_parameters() if "transcoders" not in name}
    assert not learned & set(missing), learned & set(missing)


if __name__ == "__main__":
    main()
