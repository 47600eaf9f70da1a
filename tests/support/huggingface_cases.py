"""Random Hugging Face models on disk with their logits and a derived error bound on ours.

Truth is transformers in fp64 throughout. docs/accuracy.md derives the bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitlens
import torch
import transformers
from bitlens.benchmarks.hugging_face import InDouble
from bitlens.model.config import ModelConfig
from bitlens.model.sources import open_checkpoint
from support.error_bounds import LogitBounds, Rounding

SHAPE: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 40,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


def heads(query: int, key_value: int, d_head: int) -> dict[str, int]:
    return {
        "num_attention_heads": query,
        "num_key_value_heads": key_value,
        "head_dim": d_head,
    }


LENGTHS = (16, 7, 1)
NATIVE, TRANSFORMERS = Rounding(), Rounding(angles=True)
U64 = 2.0**-53 / NATIVE.u
"""What turns a bound for fp32 into one for fp64."""


@dataclass(frozen=True)
class Case:
    """A model on disk, its prompts left-padded, and the logits of its real tokens, [T, V] each."""

    path: Path
    tokens_BP: torch.Tensor
    mask_BP: torch.Tensor
    truth: torch.Tensor
    transformers: torch.Tensor
    bound: torch.Tensor
    bound_transformers: torch.Tensor

    def logits(self, **options: Any) -> torch.Tensor:
        model = bitlens.load(self.path, **options)
        return model(self.tokens_BP, self.mask_BP)[self.mask_BP.bool()].detach()

    def changed(self, change: Callable[[ModelConfig], ModelConfig], **options: Any) -> torch.Tensor:
        """The logits under another config."""
        checkpoint = open_checkpoint(self.path)
        config = change(checkpoint.config)
        model = bitlens.load(dataclasses.replace(checkpoint, config=config), **options)
        return model(self.tokens_BP, self.mask_BP)[self.mask_BP.bool()].detach()


def random_weights(config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    """A model whose activations stay near 1 and whose every tensor matters."""
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, x in model.named_parameters():
            x.normal_(generator=generator)
            if name.endswith("norm.weight"):
                x.mul_(0.1).add_(0.0 if config.model_type.startswith("gemma") else 1.0)
            else:
                x.mul_(0.1 if x.ndim == 1 else x.shape[1] ** -0.5)
    return model.eval()


def left_padded(d_vocab: int, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens_BP = torch.randint(d_vocab, (len(lengths), max(lengths)), generator=generator)
    mask_BP = torch.zeros_like(tokens_BP)
    for b, length in enumerate(lengths):
        mask_BP[b, -length:] = 1
    return tokens_BP, mask_BP


@torch.no_grad()
def real_logits(
    model: transformers.PreTrainedModel, tokens_BP: torch.Tensor, mask_BP: torch.Tensor
) -> torch.Tensor:
    positions_BP = (mask_BP.cumsum(1) - 1).clamp(min=0)
    logits = model(tokens_BP, attention_mask=mask_BP, position_ids=positions_BP).logits
    return logits[mask_BP.bool()]


@contextmanager
def _double_by_default() -> Iterator[None]:
    """Dynamic RoPE divides integers, which gives torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make_case(
    config: transformers.PretrainedConfig, path: Path, lengths: Sequence[int] = LENGTHS
) -> Case:
    model = random_weights(config)
    model.save_pretrained(path)
    tokens_BP, mask_BP = left_padded(config.vocab_size, lengths)
    with InDouble(), _double_by_default():
        wide = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        wide.double().load_state_dict(model.state_dict())
        truth = real_logits(wide.eval(), tokens_BP, mask_BP)
    fp64 = bitlens.load(path, dtype="fp64", backend="torch")
    measure = LogitBounds(fp64, (NATIVE, TRANSFORMERS))
    rows = [measure(row[mask.bool()])[1] for row, mask in zip(tokens_BP, mask_BP, strict=True)]
    bound, bound_transformers = (torch.cat(bounds) for bounds in zip(*rows, strict=True))
    return Case(
        path=path,
        tokens_BP=tokens_BP,
        mask_BP=mask_BP,
        truth=truth,
        transformers=real_logits(model, tokens_BP, mask_BP),
        bound=bound,
        bound_transformers=bound_transformers,
    )


def used(found: torch.Tensor, expected: torch.Tensor, bound: torch.Tensor) -> float:
    """The largest share of its bound that any difference takes up."""
    return float(((found.double() - expected.double()).abs() / bound).max())
