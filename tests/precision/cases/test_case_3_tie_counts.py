"""Case 3, pytorch#195214: fused, a value is not rounded to bf16 before it is compared with `==`.

The gradient of amax goes to the elements that equal the maximum, divided by their number. The
maximum was stored in bf16; the fused kernel compares it with values it never rounded, finds no
equal one, and divides by zero. The producer is a division in the report and SiLU here.
"""

from __future__ import annotations

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.oracle import check
from support.conventional import assert_close

DECLARED = PrecisionContract("silu", storage="bf16")


def silu(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(x.float()).bfloat16()


def silu_fused_with_its_consumer(x: torch.Tensor) -> torch.Tensor:
    """The rounding to bf16 at the operation's end is elided."""
    return torch.nn.functional.silu(x.float())


def gradient_of_the_maximum(compared: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    ties = (compared.float() == stored.float().amax(-1, keepdim=True)).float()
    return ties / ties.sum(-1, keepdim=True)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(24, 256, generator=torch.Generator().manual_seed(1)).bfloat16()


def test_the_fused_gradient_is_not_finite(x: torch.Tensor) -> None:
    assert bool(gradient_of_the_maximum(silu(x), silu(x)).isfinite().all())
    fused = gradient_of_the_maximum(silu_fused_with_its_consumer(x), silu(x))
    assert not bool(fused.isfinite().all())


def test_the_conventional_test_passes(x: torch.Tensor) -> None:
    assert_close(silu_fused_with_its_consumer(x), silu(x))


def test_ours_fails_and_names_the_silu(x: torch.Tensor) -> None:
    assert check(silu(x), {"x": x}, DECLARED).ok
    verdict = check(silu_fused_with_its_consumer(x), {"x": x}, DECLARED)
    assert not verdict.ok
    assert "silu[" in verdict.reason
    # What is missing is the cast, and nothing else.
    assert check(silu_fused_with_its_consumer(x).bfloat16(), {"x": x}, DECLARED).ok
