"""Case 6, aiter#5151 and aiter#3806: casts that truncate, norms that sum in bf16.

aiter's fused add and RMSNorm cut fp32 to bf16 instead of rounding. At most one ULP a call, so
"every tolerance-based test passes"; after the 72 calls of a 36-layer model the residual stream had
lost 9% of its size.
"""

from __future__ import annotations

import pytest
import torch
from bitlens.precision.bias import signed_bias
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.emulation import emulate
from bitlens.precision.faults import FAULTS
from bitlens.precision.formats import round_to
from bitlens.precision.oracle import check
from support.conventional import assert_close

CALLS = 72
NORM = PrecisionContract("rms_norm", storage="bf16")
ADD = PrecisionContract("matmul", storage="bf16")  # x + y, as a product with ones
PAIRWISE_NORM = PrecisionContract("rms_norm", storage="bf16", order="pairwise")


def truncated(x: torch.Tensor) -> torch.Tensor:
    return round_to(x.double(), "bf16", "toward_zero").bfloat16()


def add(residual: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    return (residual.float() + update.float()).bfloat16()


def add_truncating(residual: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    return truncated(residual.float() + update.float())


def terms(residual: torch.Tensor, update: torch.Tensor) -> dict[str, torch.Tensor]:
    pairs = torch.stack([residual, update], dim=-1)
    return {"a": pairs, "b": pairs.new_ones(2, 1)}


@pytest.fixture
def stream() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A residual and the updates that 72 calls add to it, bf16 [16, 512]."""
    generator = torch.Generator().manual_seed(2)
    updates = 0.02 * torch.randn(CALLS, 16, 512, generator=generator)
    return torch.randn(16, 512, generator=generator).bfloat16(), list(updates.bfloat16())


def test_the_residual_stream_shrinks(stream: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    exact, rounded, cut = stream[0].double(), stream[0], stream[0]
    for update in stream[1]:
        exact, rounded, cut = exact + update, add(rounded, update), add_truncating(cut, update)
    assert abs(float(rounded.double().norm() / exact.norm()) - 1) < 0.01
    assert float(cut.double().norm() / exact.norm()) < 0.93


def test_the_conventional_test_passes_at_every_call(
    stream: tuple[torch.Tensor, list[torch.Tensor]],
) -> None:
    residual = stream[0]
    for update in stream[1]:
        assert_close(add_truncating(residual, update), add(residual, update))
        residual = add_truncating(residual, update)


def test_ours_fails_the_first_call(stream: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    residual, update = stream[0], stream[1][0]
    inputs = terms(residual, update)
    honest = check(add(residual, update)[..., None], inputs, ADD)
    assert honest.ok
    assert abs(honest.bias_ulp) < 0.02
    verdict = check(add_truncating(residual, update)[..., None], inputs, ADD)
    assert not verdict.ok
    assert "matmul[" in verdict.reason
    assert verdict.bias_ulp < -0.3
    exact = residual.double() + update.double()
    assert signed_bias(add_truncating(residual, update), exact).p_value < 1e-12
    assert signed_bias(add(residual, update), exact).p_value > 1e-3


def test_ours_fails_the_norm_of_the_same_kernel() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(16, 512, generator=generator).bfloat16()
    weight = (1 + 0.1 * torch.randn(512, generator=generator)).bfloat16()
    inputs = {"x": x, "weight": weight, "eps": 1e-6}
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    honest = x.float() * scale * weight.float()
    assert_close(truncated(honest), honest.bfloat16())
    assert check(honest.bfloat16(), inputs, NORM).ok
    verdict = check(truncated(honest), inputs, NORM)
    assert not verdict.ok
    assert "rms_norm[" in verdict.reason
    assert verdict.bias_ulp < -0.4


def test_a_norm_that_sums_in_bf16_flips_tokens() -> None:
    """aiter#3806: 9 of 4,096 argmaxes changed on near-uniform logits."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(4096, 256, generator=generator).bfloat16()
    weight = torch.ones(256).bfloat16()
    inputs = {"x": x, "weight": weight, "eps": 1e-6}
    honest = emulate(inputs, PAIRWISE_NORM)
    faulty = emulate(inputs, PAIRWISE_NORM, FAULTS["low_precision_accumulator"])
    W_U = torch.randn(256, 500, generator=generator).bfloat16().float()
    flips = ((honest.float() @ W_U).argmax(-1) != (faulty.float() @ W_U).argmax(-1)).sum()
    assert int(flips) > 0

    assert_close(faulty, honest)
    assert check(honest, inputs, PAIRWISE_NORM).ok
    verdict = check(faulty, inputs, PAIRWISE_NORM)
    assert not verdict.ok
    assert "rms_norm[" in verdict.reason
