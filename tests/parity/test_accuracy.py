"""SmolLM2's logits are as near the truth as Hugging Face's; `benchmarks/accuracy.py` measures."""

from __future__ import annotations

import pytest
from bitlens.benchmarks.accuracy import Logits, measure, prompts
from bitlens.model.weights.checkpoint import Checkpoint

LIMITS = {"fp32": 1.0, "bf16": 1.05}
"""RMS error over Hugging Face eager's."""


def check(
    checkpoint: Checkpoint,
    policy: str,
    texts: list[str],
    truth: Logits | None = None,
    skip: int = 0,
) -> None:
    result = measure(checkpoint, policy, texts, truth, skip)
    assert result.ratio <= LIMITS[policy]
    if policy == "fp32":
        assert result.decided > 0.95 * result.n_positions
        assert result.disagreements == 0


def test_there_are_64_prompts_of_many_lengths(smollm2: Checkpoint) -> None:
    assert smollm2.tokenizer is not None
    lengths = [len(smollm2.tokenizer.encode(text)) for text in prompts()]
    assert len(set(prompts())) == 64
    assert min(lengths) >= 16
    assert max(lengths) > 100


def test_fp32_on_eight_prompts(smollm2: Checkpoint, truth: Logits) -> None:
    check(smollm2, "fp32", prompts()[::8], truth)


def test_bf16_on_eight_prompts(smollm2: Checkpoint) -> None:
    check(smollm2, "bf16", prompts()[::8])


@pytest.mark.nightly
def test_fp32_on_all_prompts(smollm2: Checkpoint) -> None:
    check(smollm2, "fp32", prompts())


@pytest.mark.nightly
def test_bf16_on_all_prompts(smollm2: Checkpoint) -> None:
    check(smollm2, "bf16", prompts())


@pytest.mark.nightly
@pytest.mark.parametrize("skip", [4, 8])
def test_bf16_on_all_prompts_from_a_later_token(smollm2: Checkpoint, skip: int) -> None:
    check(smollm2, "bf16", prompts(), skip=skip)
