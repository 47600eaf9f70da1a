"""bitlens's kernels under the pytest plugin: what docs/numerics.md promises, searched for breaches.

`pytest --nightly --precision-profile=nightly --precision-report=html tests/precision/
test_own_kernels.py` searches longer, on every instruction set, and writes a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from bitlens import _core
from bitlens.precision.assertions import assert_bitwise
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.contracts import bitlens_contract
from bitlens.precision.strategies import Random, Recipe, batch_compositions, massive_activations
from hypothesis import given
from hypothesis import strategies as st
from support.bitlens_kernels import KERNELS

if TYPE_CHECKING:
    from bitlens.precision.pytest_plugin import PrecisionTest

Tensor = torch.Tensor
Kernel = Callable[..., Tensor]


def _cases() -> Iterator[Any]:
    contracts = [bitlens_contract(op, policy) for policy in ("fp32", "bf16") for op in KERNELS]
    for contract in dict.fromkeys(contracts):  # softmax and logsumexp are fp32 under both
        for isa in _core.available_isas():
            marks = [pytest.mark.precision(contract=contract)]
            # The bits are the same on all (tests/invariance), so one is enough by day.
            if isa != _core.isa():
                marks += [pytest.mark.nightly]
            name = f"{contract.op}-{contract.storage}-{isa}"
            yield pytest.param(KERNELS[contract.op], isa, id=name, marks=marks)


@pytest.mark.parametrize(("kernel", "isa"), list(_cases()))
def test_kernels_keep_their_contracts(precision: PrecisionTest, kernel: Kernel, isa: str) -> None:
    _core.set_isa(isa)
    precision.check(kernel, name=f"bitlens {isa}")


ROWWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "matmul": lambda x, w: KERNELS["matmul"](x, w[:, None] * torch.ones(1, 5, dtype=w.dtype)),
    "rms_norm": lambda x, w: KERNELS["rms_norm"](x, w, 1e-6),
    "softmax": lambda x, w: KERNELS["softmax"](x.float()),
    "swiglu": lambda x, w: KERNELS["swiglu"](x, x.flip(-1)),
}


@pytest.mark.parametrize("op", ROWWISE)
@given(data=st.data())
def test_rows_do_not_depend_on_their_batch(op: str, data: st.DataObject) -> None:
    """Any order, any grouping, any padding: the same bits."""
    rows, d = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([1, 33, 257]))
    x = data.draw(massive_activations((rows, d), "bf16")).build()
    weight = Recipe((d,), "bf16", Random(1, None, (-2, 1))).build()
    composition = data.draw(batch_compositions(rows))
    pieces = [ROWWISE[op](piece, weight) for piece in composition.split(x)]
    assert_bitwise(composition.join(pieces), ROWWISE[op](x, weight))


def _torch_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


@pytest.mark.precision(
    contract=PrecisionContract("rms_norm"),
    backends={"native": KERNELS["rms_norm"], "torch": _torch_norm},
)
def test_both_backends_norms_are_as_good_as_fp32_allows(precision: PrecisionTest) -> None:
    precision.check()


@pytest.mark.precision(contract=bitlens_contract("rms_norm", "bf16"), strategies=["random"])
def test_a_truncating_norm_is_caught(precision: PrecisionTest) -> None:
    """The negative control: at most 1 ULP off, and inside every tolerance in use."""

    def truncating(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = KERNELS["rms_norm"](x.float(), weight.float(), eps)
        return (exact.view(torch.int32) & -65536).view(torch.float32).bfloat16()

    with pytest.raises(pytest.fail.Exception, match="lies outside of the permitted"):
        precision.check(truncating)
    precision.records.clear()
