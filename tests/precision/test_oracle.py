"""precision/oracle.py: the faults that every tolerance lets through, edges, and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.emulation import emulate
from bitlens.precision.operations import InputsError
from bitlens.precision.oracle import check, enclosure

Tensor = torch.Tensor

ONE_CAST = PrecisionContract("rms_norm", storage="bf16")
TWO_CASTS = PrecisionContract("rms_norm", storage="bf16", casts=("normalized", "output"))


def _normalized(x: Tensor) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def _correct(x: Tensor, w: Tensor) -> Tensor:
    return (_normalized(x) * w.float()).bfloat16()


def _extra_cast(x: Tensor, w: Tensor) -> Tensor:
    return _normalized(x).bfloat16() * w


def _missing_upcast(x: Tensor, w: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w


def _bf16_rstd(x: Tensor, w: Tensor) -> Tensor:
    rstd = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).bfloat16()
    return (x.float() * rstd.float() * w.float()).bfloat16()


def _bf16_tree_sum(x: Tensor, w: Tensor) -> Tensor:
    total = x.float().pow(2).bfloat16()
    while total.shape[-1] > 1:
        total = total[..., ::2] + total[..., 1::2]
    rstd = torch.rsqrt(total.float() / x.shape[-1] + 1e-6)
    return (x.float() * rstd * w.float()).bfloat16()


def _truncating(x: Tensor, w: Tensor) -> Tensor:
    y = _normalized(x) * w.float()
    return (y.view(torch.int32) & -(2**16)).view(torch.float32).bfloat16()


@pytest.fixture(params=[512, 4096])
def rows(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    n = request.param
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, n, generator=generator).bfloat16()
    return {"x": x, "weight": (1 + 0.1 * torch.randn(n, generator=generator)).bfloat16()}


@pytest.mark.parametrize(
    ("implementation", "bias"),
    [
        (_missing_upcast, 0.0),
        (_bf16_rstd, 0.0),
        (_bf16_tree_sum, 0.0),
        (_truncating, -0.5),
        (_extra_cast, 0.0),
    ],
)
def test_the_faults_that_tolerances_pass_are_caught(
    rows: dict[str, Tensor], implementation: Callable[[Tensor, Tensor], Tensor], bias: float
) -> None:
    actual = implementation(rows["x"], rows["weight"])
    torch.testing.assert_close(actual, _correct(rows["x"], rows["weight"]))
    verdict = check(actual, rows, ONE_CAST)
    assert not verdict.ok
    assert verdict.violations > verdict.elements / 10
    assert verdict.bias_ulp == pytest.approx(bias, abs=0.1)


def test_correct_rounding_passes_and_uses_no_room(rows: dict[str, Tensor]) -> None:
    verdict = check(_correct(rows["x"], rows["weight"]), rows, ONE_CAST)
    assert verdict.ok
    assert verdict.max_ulp_error < 0.51
    assert verdict.utilisation < 0.1


def test_a_declared_cast_left_out_is_excess_precision(rows: dict[str, Tensor]) -> None:
    assert check(_extra_cast(rows["x"], rows["weight"]), rows, TWO_CASTS).ok
    closer = check(_correct(rows["x"], rows["weight"]), rows, TWO_CASTS)
    assert not closer.ok
    assert closer.max_ulp_error < 0.51


def test_an_output_cast_left_out_shows_in_a_wider_dtype() -> None:
    inputs = {"x": torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16()}
    contract = PrecisionContract("softmax", storage="bf16")
    wide = inputs["x"].float().softmax(-1)
    assert check(wide.bfloat16().float(), inputs, contract).ok
    verdict = check(wide, inputs, contract)
    assert not verdict.ok
    assert "is no bf16 number" in verdict.reason or "lies outside" in verdict.reason


def test_lattice_inputs_leave_no_room_at_all() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-9, 10, s, generator=generator).float() for s in ((5, 300), (300, 7)))
    allowed = enclosure({"a": a, "b": b}, PrecisionContract("matmul"))
    assert torch.equal(allowed.lo, allowed.hi)
    assert torch.equal(allowed.lo, (a.double() @ b.double()))


def test_a_tie_goes_to_even_and_nowhere_else() -> None:
    a, b = torch.tensor([[1.0, 2.0**-8]]).bfloat16(), torch.ones(2, 1).bfloat16()
    contract = PrecisionContract("matmul", storage="bf16")
    inputs = {"a": a, "b": b}
    assert check(torch.tensor([[1.0]]).bfloat16(), inputs, contract).ok
    assert not check(torch.tensor([[1.0 + 2.0**-7]]).bfloat16(), inputs, contract).ok


def test_a_promised_chain_is_judged_bit_by_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(s, generator=generator).bfloat16() for s in ((4, 500), (500, 8)))
    contract = PrecisionContract("matmul", storage="bf16", output="fp32", order="sequential")
    inputs = {"a": a, "b": b}
    chain = emulate(inputs, contract)
    assert check(chain, inputs, contract).ok
    nudged = torch.nextafter(chain, torch.tensor(torch.inf))
    assert check(nudged, inputs, contract).violations == chain.numel()


@pytest.mark.parametrize("op", ["rms_norm", "softmax", "attention", "layer_norm"])
def test_where_the_truth_is_undefined_nothing_is_claimed(op: str) -> None:
    inputs: dict[str, Any] = {
        "rms_norm": {"x": torch.zeros(1, 4), "weight": torch.ones(4), "eps": 0.0},
        "layer_norm": {
            "x": torch.ones(1, 4),
            "weight": torch.ones(4),
            "bias": torch.ones(4),
            "eps": 0.0,
        },
        "softmax": {"x": torch.full((1, 4), -math.inf)},
        "attention": {
            "q": torch.ones(1, 1, 4),
            "k": torch.ones(1, 4, 4),
            "v": torch.ones(1, 4, 4),
            "causal": True,
            "window": 2,
            "past": 9,
        },
    }[op]
    for value in (0.0, math.nan):
        shape = (1, 1, 4) if op == "attention" else (1, 4)
        verdict = check(torch.full(shape, value), inputs, PrecisionContract(op))
        assert not verdict.ok, "nothing claimed is nothing shown"
        assert verdict.violations == verdict.claimed == 0
        assert verdict.unclaimed == verdict.elements == 4


def test_overflow_is_permitted_where_a_partial_sum_may_overflow() -> None:
    large = torch.full((1, 4), 2.0**62)
    inputs = {"x": large, "weight": torch.ones(4), "eps": 0.0}
    contract = PrecisionContract("rms_norm")
    assert check(torch.ones(1, 4), inputs, contract).ok
    huge = {**inputs, "x": large * 4}
    for value in (torch.ones(1, 4), torch.zeros(1, 4)):
        assert check(value, huge, contract).unclaimed == 4
    assert not check(torch.zeros(1, 4), inputs, contract).ok


def test_masked_keys_weigh_exactly_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 6, 8, generator=generator) for _ in range(3))
    contract = PrecisionContract("attention")
    first = enclosure({"q": q, "k": k, "v": v, "causal": True}, contract)
    k[:, 1:], v[:, 1:] = 100.0, 1e30
    again = enclosure({"q": q, "k": k, "v": v, "causal": True}, contract)
    assert torch.equal(first.lo[:, 0], again.lo[:, 0])
    assert torch.equal(first.hi[:, 0], again.hi[:, 0])
    apart = (first.exact[:, 0] - v[:, 0].double()).abs()
    assert bool((apart <= first.error[:, 0]).all())
    assert float(first.error[:, 0].max()) < 1e-13
    probabilities = torch.tensor([[0.0, -math.inf, 0.0]])
    one = enclosure({"x": probabilities}, PrecisionContract("softmax"))
    assert one.lo[0, 1].item() == one.hi[0, 1].item() == 0.0


def test_nan_is_a_violation_where_a_number_is_due() -> None:
    verdict = check(torch.tensor([math.nan]), {"x": torch.ones(1)}, PrecisionContract("silu"))
    assert not verdict.ok
    assert verdict.where == (0,)
    assert "nan where" in verdict.reason


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        ("matmul", {"a": torch.ones(2, 3)}, "missing b"),
        ("matmul", {"a": torch.ones(2, 3), "b": torch.ones(3, 2), "c": 1}, "unknown c"),
        ("matmul", {"a": torch.ones(2, 3), "b": torch.ones(4, 2)}, "shapes do not fit"),
        ("matmul", {"a": torch.ones(2, 3), "b": torch.ones(3, 2, dtype=torch.int64)}, "floating"),
        ("rms_norm", {"x": torch.ones(2, 3), "weight": torch.ones(2)}, "shapes do not fit"),
        ("rms_norm", {"x": torch.ones(3), "weight": torch.ones(3), "eps": -1.0}, "eps"),
        ("softmax", {"x": torch.tensor([1.0, math.nan])}, r"x\[1\] is nan"),
        ("silu", {"x": torch.tensor([math.inf])}, "finite"),
        ("silu", {"x": torch.ones(0)}, "not empty"),
        ("rope", {"x": torch.ones(2, 3), "positions": torch.arange(2)}, "odd"),
        ("rope", {"x": torch.ones(2, 4), "cos": torch.ones(2, 2)}, "either cos and sin"),
        ("gelu", {"x": torch.ones(1), "approximate": "quick"}, "'none' or 'tanh'"),
        (
            "attention",
            {"q": torch.ones(3, 2, 4), "k": torch.ones(2, 2, 4), "v": torch.ones(2, 2, 4)},
            "shapes do not fit",
        ),
    ],
)
def test_bad_inputs_name_the_argument(op: str, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputsError, match=message):
        enclosure(inputs, PrecisionContract(op))


def test_inputs_that_the_formats_cannot_hold_are_refused() -> None:
    contract = PrecisionContract("silu", storage="bf16", compute="bf16")
    with pytest.raises(InputsError, match="cast the inputs first"):
        enclosure({"x": torch.tensor([1 + 2.0**-10])}, contract)


def test_an_output_of_another_shape_is_refused() -> None:
    inputs = {"x": torch.ones(2, 3)}
    with pytest.raises(InputsError, match=r"shape \[3\]"):
        check(torch.ones(3), inputs, PrecisionContract("silu"))
    with pytest.raises(InputsError, match="real numbers"):
        check(torch.ones(2, 3, dtype=torch.bool), inputs, PrecisionContract("silu"))
