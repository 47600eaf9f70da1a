"""precision/bounds/tensor_core.py against an emulation of the block-wise adder it describes."""

from __future__ import annotations

import pytest
import torch
from bitlens.precision.bounds.tensor_core import tensor_core_dot_bound
from bitlens.precision.exact import exact_dot
from bitlens.precision.formats import round_to
from hypothesis import given
from hypothesis import strategies as st
from support.every_operation import KINDS, draw

Tensor = torch.Tensor


def _tensor_core(a: Tensor, b: Tensor, block: int, fraction_bits: int) -> Tensor:
    """Aligned, truncated, added exactly, truncated to fp32."""
    total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.float64)
    for start in range(0, a.shape[1], block):
        products = a[:, start : start + block].double()[:, :, None] * b[start : start + block]
        terms = torch.cat([total[:, None], products], 1)
        exponent = torch.frexp(terms.abs().amax(1, keepdim=True)).exponent - 1
        grid = 2.0 ** (exponent - fraction_bits).double()
        total = round_to(((terms / grid).trunc() * grid).sum(1), "fp32", "toward_zero")
    return total


@pytest.mark.parametrize(("block", "fraction_bits"), [(4, 23), (8, 24), (16, 25), (32, 13)])
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**20))
def test_the_block_adder_stays_within(block: int, fraction_bits: int, kind: str, seed: int) -> None:
    inputs = draw("matmul", kind, seed, torch.bfloat16)
    a, b = inputs["a"], inputs["b"]
    error = (_tensor_core(a, b, block, fraction_bits) - exact_dot(a, b)).abs()
    bound = tensor_core_dot_bound(a, b, block=block, fraction_bits=fraction_bits)
    assert bool((error <= bound).all())


def test_the_bound_is_used() -> None:
    a = torch.full((1, 256), 2.0**-12 * (1 - 2.0**-7))
    a[0, 0] = 1.0
    b = a.T.contiguous()
    error = (_tensor_core(a, b, 16, 25) - exact_dot(a, b)).abs()
    bound = tensor_core_dot_bound(a, b, block=16, fraction_bits=25)
    assert 0.05 < (error / bound).item() <= 1


def test_wrong_arguments_name_themselves() -> None:
    with pytest.raises(ValueError, match="block=0"):
        tensor_core_dot_bound(torch.ones(1, 2), torch.ones(2, 1), block=0, fraction_bits=24)
