"""Case 1, Anthropic's postmortem of 2025-09-17: the most likely token is dropped.

A sampler's probabilities were declared bf16; `xla_allow_excess_precision` let the compiler keep
them in fp32 where it fused, so that one side of a comparison was rounded and the other was not.
"""

from __future__ import annotations

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.oracle import check
from support.conventional import assert_close

DECLARED = PrecisionContract("softmax", storage="bf16")


def probabilities(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1).bfloat16()


def probabilities_with_excess_precision(x: torch.Tensor) -> torch.Tensor:
    """What XLA makes of the same program: the rounding to bf16 and back is elided."""
    return torch.softmax(x, -1)


def most_likely_kept(compared: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Whether the filter at temperature 0, p >= max p, keeps the best token of each row."""
    best = compared.float().argmax(-1, keepdim=True)
    return compared.float().gather(-1, best) >= threshold.float()


@pytest.fixture
def logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(64, 2000, generator=generator)


def test_excess_precision_loses_the_top_token(logits: torch.Tensor) -> None:
    threshold = probabilities(logits).amax(-1, keepdim=True)
    assert bool(most_likely_kept(probabilities(logits), threshold).all())
    kept = most_likely_kept(probabilities_with_excess_precision(logits), threshold)
    assert not bool(kept.all())


def test_the_conventional_test_passes(logits: torch.Tensor) -> None:
    assert_close(probabilities_with_excess_precision(logits), probabilities(logits))


def test_ours_fails_and_names_the_softmax(logits: torch.Tensor) -> None:
    assert check(probabilities(logits), {"x": logits}, DECLARED).ok
    verdict = check(probabilities_with_excess_precision(logits), {"x": logits}, DECLARED)
    assert not verdict.ok
    assert "softmax[" in verdict.reason
    # What is missing is the cast, and nothing else.
    cast = probabilities_with_excess_precision(logits).bfloat16()
    assert check(cast, {"x": logits}, DECLARED).ok
