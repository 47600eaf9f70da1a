"""SAEs with random weights, and SAELens's own model with a checkpoint's weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import bitlens
import sae_lens
import torch
from bitlens.model.interop.sae_lens_model import SAELensModel
from bitlens.model.weights.checkpoint import Checkpoint
from support.transformer_lens_peer import transformer_lens_llama

D_SAE = 64


def random_sae(hook: str, d_in: int, context_size: int = 6, reshape: str = "none") -> Any:
    """A ReLU SAE of D_SAE latents, the same at every call."""
    metadata = sae_lens.saes.sae.SAEMetadata(
        hook_name=hook, context_size=context_size, prepend_bos=True, model_name="random"
    )
    config = sae_lens.StandardSAEConfig(
        d_in=d_in,
        d_sae=D_SAE,
        dtype="float32",
        device="cpu",
        reshape_activations=reshape,
        metadata=metadata,
    )
    sae = sae_lens.StandardSAE(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in sae.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * d_in**-0.5)
    return sae


def random_transcoder(read: str, written: str, d: int, *, skip: bool = False) -> Any:
    """A ReLU transcoder of D_SAE latents, the same at every call."""
    metadata = sae_lens.saes.sae.SAEMetadata(
        hook_name=read, hook_name_out=written, context_size=6, model_name="random"
    )
    kind, config = (
        (sae_lens.SkipTranscoder, sae_lens.SkipTranscoderConfig)
        if skip
        else (sae_lens.Transcoder, sae_lens.TranscoderConfig)
    )
    transcoder = kind(
        config(
            d_in=d,
            d_out=d,
            d_sae=D_SAE,
            dtype="float32",
            device="cpu",
            apply_b_dec_to_input=False,
            metadata=metadata,
        )
    )
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in transcoder.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * d**-0.5)
    return transcoder


def hooked_sae_transformer(checkpoint: Checkpoint, ours: SAELensModel) -> Any:
    """SAELens's model on TransformerLens, with our tokenizer."""
    kind = sae_lens.HookedSAETransformer
    lens = transformer_lens_llama(checkpoint, kind, use_attn_result=False)
    assert ours.tokenizer is not None
    lens.tokenizer = SimpleNamespace(**asdict(ours.tokenizer), padding_side="left")
    lens.to_tokens = ours.to_tokens
    return lens


@dataclass(frozen=True)
class Subject:
    """A checkpoint on both sides, an SAE for one of its hooks, and tokens [1, P]."""

    checkpoint: Checkpoint
    ours: SAELensModel
    theirs: Any
    sae: Any
    tokens: torch.Tensor

    @property
    def hook(self) -> str:
        name: str = self.sae.cfg.metadata.hook_name
        return name


def subject(checkpoint: Checkpoint, layer: int, tokens: list[int]) -> Subject:
    """With a random SAE for the residual stream after this layer."""
    ours = SAELensModel(bitlens.load(checkpoint))
    hook = f"blocks.{layer}.hook_resid_post"
    sae = random_sae(hook, checkpoint.config.d_model, len(tokens))
    lens = hooked_sae_transformer(checkpoint, ours)
    return Subject(checkpoint, ours, lens, sae, torch.tensor([tokens]))
