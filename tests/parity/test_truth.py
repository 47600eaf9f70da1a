"""The fp64 path, against which accuracy is measured, is Hugging Face's function."""

from __future__ import annotations

import pytest
import torch
from bitlens.benchmarks.accuracy import Logits, prompts
from bitlens.benchmarks.hugging_face import InDouble, llama
from bitlens.model.weights.checkpoint import Checkpoint
from transformers import LlamaForCausalLM

TOLERANCE = 1e-10
"""Relative to the logits' norm: 4 decimal digits below what fp32 resolves."""


@pytest.fixture(scope="module")
def wide(smollm2: Checkpoint) -> LlamaForCausalLM:
    return llama(smollm2, torch.float64)


@pytest.fixture(scope="module", params=[3, 12])
def tokens(smollm2: Checkpoint, request: pytest.FixtureRequest) -> torch.Tensor:
    assert smollm2.tokenizer is not None
    return torch.tensor(smollm2.tokenizer.encode(prompts()[request.param]))


def distance(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


@torch.no_grad()
def test_fp64_is_transformers_in_fp64(
    wide: LlamaForCausalLM, truth: Logits, tokens: torch.Tensor
) -> None:
    with InDouble():
        logits = wide(tokens[None]).logits[0]
    assert logits.dtype == torch.float64
    assert distance(logits, truth(tokens)) < TOLERANCE


@torch.no_grad()
def test_double_alone_is_not(wide: LlamaForCausalLM, truth: Logits, tokens: torch.Tensor) -> None:
    """Norm, rotary angles and softmax stay in fp32."""
    assert distance(wide(tokens[None]).logits[0], truth(tokens)) > 100 * TOLERANCE
