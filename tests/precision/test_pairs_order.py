"""The order of bf16 products: the emulation has the kernels' bits, step for step."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from bitlens.model.ops import kernels
from bitlens.model.ops.packed import pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix
from bitlens.precision.arithmetic.orders import dot_in_order, sum_in_order
from bitlens.precision.contract import ContractError, PrecisionContract, depth
from bitlens.precision.contracts import bitlens_contract
from bitlens.precision.formats import FP32
from hypothesis import given
from hypothesis import strategies as st


def _dot(x: torch.Tensor, w: torch.Tensor, order: str) -> torch.Tensor:
    exact = dot_in_order(x.double(), w.double().T, order, FP32, FP32, fused=True, flush=False)
    return exact.float().view(torch.int32)


@given(k=st.sampled_from([1, 2, 31, 33, 64, 255, 256, 257, 600]), seed=st.integers(0, 2**32 - 1))
def test_the_order_is_that_of_linear(k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, k, generator=generator).bfloat16()
    w = torch.randn(33, k, generator=generator).bfloat16()
    packed = pack(StoredMatrix(Format.BF16, 33, k, w))
    y = kernels.linear(x, packed.data, packed.format, 33, None, torch.float32).view(torch.int32)
    assert torch.equal(_dot(x, w, "pairs:32:256"), y)
    if k >= 64:  # negative control: the order of fp32 activations
        assert not torch.equal(_dot(x, w, "blocked:256"), y)


def test_sums_of_given_terms_take_the_same_steps() -> None:
    """Against a loop over one row; of 70 terms, in blocks of 8 and leaves of 32."""
    terms = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))

    def in_order(row: list[float]) -> float:
        def rounded(x: float) -> float:
            return float(torch.tensor(x, dtype=torch.float64).float())

        def chain(values: list[float]) -> float:
            total = 0.0
            for value in values:
                total = rounded(total + value)
            return total

        leaves = [
            chain(
                [
                    rounded(chain(leaf[i : i + 8 : 2]) + chain(leaf[i + 1 : i + 8 : 2]))
                    for i in range(0, len(leaf), 8)
                ]
            )
            for leaf in (row[start : start + 32] for start in range(0, len(row), 32))
        ]
        return chain(leaves)

    found = sum_in_order(terms.double(), "pairs:8:32", FP32, flush=False)
    assert found.squeeze(-1).tolist() == [in_order(row) for row in terms.double().tolist()]


def test_kernels_of_bf16_promise_it() -> None:
    for policy in ("bf16", "hf_bf16"):
        assert bitlens_contract("matmul", policy).order == "pairs:32:256"
        assert bitlens_contract("unembed", policy).order == "pairs:32:256"
    for policy in ("fp32", "bf16_weights"):
        assert bitlens_contract("matmul", policy).order == "blocked:256"
    assert bitlens_contract("rms_norm", "bf16").order == "blocked:256"


@pytest.mark.parametrize(
    "order", ["pairs:32", "pairs:1:4", "pairs:32:100", "pairs:a:256", "pairs:"]
)
def test_sizes_that_are_none_are_refused(order: str) -> None:
    with pytest.raises(ContractError, match="pairs:B:L"):
        PrecisionContract("matmul", order=order)


@pytest.mark.parametrize(
    ("n", "expected"), [(0, 0), (1, 0), (2, 1), (32, 16), (33, 17), (256, 23), (257, 24)]
)
def test_depth(n: int, expected: int) -> None:
    """A term's own chain, the other chain, the blocks and the leaves after it."""
    assert depth("pairs:32:256", n) == expected


def test_its_bound_is_below_that_of_leaves_in_any_order() -> None:
    ratio = Fraction(depth("pairs:32:256", 4096), depth("blocked:256", 4096))
    assert math.isclose(ratio, 38 / 270)
