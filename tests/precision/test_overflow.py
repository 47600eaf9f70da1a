"""What a contract says past the largest number, and what a verdict says of what it cannot claim."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from bitlens.precision.bounds import error_bound
from bitlens.precision.contract import ContractError, PrecisionContract
from bitlens.precision.differential import differential_test
from bitlens.precision.emulation import emulate
from bitlens.precision.exact import reference
from bitlens.precision.faults import FAULTS
from bitlens.precision.formats import FORMATS, FP8_E4M3, FP8_E5M2, FP16, overflows, round_to
from bitlens.precision.oracle import check, enclosure
from bitlens.precision.search import Profile, search
from hypothesis import strategies as st

Tensor = torch.Tensor
inf, nan = math.inf, math.nan

LARGE = {"fp8_e4m3": 300.0, "fp8_e5m2": 40000.0, "fp16": 60000.0}
LARGEST = {name: FORMATS[name].largest for name in LARGE}


def _doubled(storage: str, overflow: str | None = None) -> tuple[dict[str, Any], PrecisionContract]:
    """A product of twice a large number, of either sign: past the largest of its format."""
    x = torch.tensor([[LARGE[storage]], [-LARGE[storage]]], dtype=torch.float64)
    a = round_to(x, storage).to(FORMATS[storage].dtype)
    b = torch.tensor([[2.0]]).to(FORMATS[storage].dtype)
    contract = PrecisionContract("matmul", storage=storage, overflow=overflow)
    return {"a": a, "b": b}, contract


CASES = [
    ("fp8_e4m3", None, 448.0, (nan, inf, 0.0, -448.0, 416.0)),
    ("fp8_e4m3", "saturate", 448.0, (nan, inf, 0.0, -448.0)),
    ("fp8_e4m3", "nan", nan, (448.0, inf, 0.0, -448.0)),
    ("fp8_e5m2", None, 57344.0, (nan, inf, 0.0, -57344.0)),
    ("fp8_e5m2", "saturate", 57344.0, (nan, inf, 0.0)),
    ("fp8_e5m2", "inf", inf, (57344.0, nan, -inf)),
    ("fp8_e5m2", "nan", nan, (57344.0, inf, 0.0)),
    ("fp16", None, inf, (65504.0, nan, -inf, 0.0)),
    ("fp16", "saturate", 65504.0, (inf, nan, 0.0)),
]


@pytest.mark.parametrize(("storage", "overflow", "right", "wrong"), CASES)
def test_past_the_largest_number_one_result_is_right(
    storage: str, overflow: str | None, right: float, wrong: tuple[float, ...]
) -> None:
    inputs, contract = _doubled(storage, overflow)
    for value in (right, *wrong):
        verdict = check(torch.tensor([[value], [-value]]), inputs, contract)
        assert verdict.ok == (value is right), f"{value}: {verdict.reason}"
        assert verdict.claimed == verdict.elements == 2
    assert check(emulate(inputs, contract), inputs, contract).ok
    assert check(torch.tensor([[right], [-right]]), inputs, contract).utilisation == 0
    assert check(torch.tensor([[right], [-right]]), inputs, contract).max_ulp_error == 0


def test_torchs_own_casts_are_declared_by_what_they_do() -> None:
    """On this machine torch gives e4m3 NaN or 448 and e5m2 infinity or 57344."""
    for storage in ("fp8_e4m3", "fp8_e5m2"):
        inputs, _ = _doubled(storage)
        out = (inputs["a"].float() @ inputs["b"].float()).to(FORMATS[storage].dtype)
        value = out.float()[0, 0].item()
        kind = "nan" if math.isnan(value) else "inf" if math.isinf(value) else "saturate"
        for overflow in ("saturate", "nan") + (("inf",) if storage == "fp8_e5m2" else ()):
            _, contract = _doubled(storage, overflow)
            assert check(out, inputs, contract).ok == (overflow == kind)


def test_formats_follow_their_hardware() -> None:
    assert {f.name: f.overflow for f in FORMATS.values()} == {
        **dict.fromkeys(("bf16", "fp16", "fp32", "fp64", "tf32"), "inf"),
        **dict.fromkeys(("fp8_e4m3", "fp8_e5m2", "fp4_e2m1", "int8", "int16"), "saturate"),
    }


def test_rounding_past_the_largest_number() -> None:
    x = torch.tensor([464.0, 465.0, -465.0, inf, -inf, nan], dtype=torch.float64)
    assert overflows(x, FP8_E4M3).tolist() == [False, True, True, True, True, False]
    saturated = round_to(x, FP8_E4M3, overflow="saturate")
    assert saturated[:5].tolist() == [448.0, 448.0, -448.0, 448.0, -448.0]
    assert saturated[5].isnan()
    assert round_to(x, FP8_E4M3, overflow="nan").isnan().tolist() == [False, *[True] * 5]
    edge = torch.tensor([61439.0, 61440.0], dtype=torch.float64)
    assert round_to(edge, FP8_E5M2, overflow="inf").tolist() == [57344.0, inf]
    assert round_to(edge, FP8_E5M2, overflow="saturate").tolist() == [57344.0, 57344.0]
    assert round_to(edge, FP8_E5M2, overflow="nan").isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="fp8_e4m3 has no infinity"):
        round_to(x, FP8_E4M3, overflow="inf")


def test_an_overflow_that_no_format_has_is_refused() -> None:
    with pytest.raises(ContractError, match="overflow='wrap'"):
        PrecisionContract("matmul", overflow="wrap")
    with pytest.raises(ContractError, match="fp8_e4m3 has no infinity"):
        PrecisionContract("matmul", storage="fp8_e4m3", overflow="inf")
    PrecisionContract("matmul", storage="fp8_e4m3", output="fp32", casts=("output",))


def test_a_value_before_a_later_step_overflows_by_the_same_rule() -> None:
    """HF's norm rounds before the weight: 448 * 0.5, not NaN."""
    x = torch.zeros(1, 512)
    x[0, 0] = 448.0
    inputs = {
        "x": x.to(torch.float8_e4m3fn),
        "weight": torch.full((512,), 0.5).to(torch.float8_e4m3fn),
    }
    contract = PrecisionContract(
        "rms_norm", storage="fp8_e4m3", casts=("normalized", "output"), output="fp32"
    )
    verdict = check(emulate(inputs, contract), inputs, contract)
    assert verdict.ok
    assert verdict.claimed == 512


def test_where_only_some_results_may_overflow_both_are_permitted() -> None:
    """Sums of 256 random terms near 448 + half a step: 448 or NaN, nothing else."""
    a = torch.full((1, 1), 464.0)
    contract = PrecisionContract(
        "matmul", storage="fp32", output="fp8_e4m3", overflow="nan", compute="fp32"
    )
    # 0.1 + ... in any order: the real sum is a little below or above the tie.
    inputs = {"a": torch.tensor([[464.0, 2.0**-16, -(2.0**-16)]]), "b": torch.ones(3, 1)}
    assert check(torch.tensor([[448.0]]), {"a": a, "b": torch.ones(1, 1)}, contract).ok
    assert check(torch.tensor([[448.0]]), inputs, contract).ok
    assert check(torch.tensor([[nan]]), inputs, contract).ok
    assert not check(torch.tensor([[416.0]]), inputs, contract).ok
    allowed = enclosure(inputs, contract)
    assert bool(allowed.nan.all())
    assert allowed.lo.item() == allowed.hi.item() == 448.0


@pytest.mark.parametrize("storage", ["fp16", "bf16", "fp32"])
def test_logsumexp_of_nothing_is_minus_infinity_and_nothing_else(storage: str) -> None:
    """tensorflow#11692, StatsFuns.jl#22."""
    x = torch.tensor([[-inf, -inf, -inf], [0.0, -inf, 0.0]]).to(FORMATS[storage].dtype)
    for contract in (
        PrecisionContract("logsumexp", storage=storage),
        PrecisionContract("logsumexp", storage=storage, casts=("exponentials", "sum", "output")),
    ):
        rest = emulate({"x": x[1:]}, contract)
        right = torch.cat([torch.tensor([-inf], dtype=rest.dtype), rest])
        verdict = check(right, {"x": x}, contract)
        assert verdict.ok, verdict.reason
        assert verdict.claimed == 2
        assert verdict.utilisation < 1
        assert torch.equal(emulate({"x": x}, contract), right)
        for value in (nan, inf, 0.0, torch.finfo(rest.dtype).min):
            wrong = right.clone()
            wrong[0] = value
            assert check(wrong, {"x": x}, contract).violations == 1


def test_a_verdict_counts_what_it_claims_in_words() -> None:
    x = torch.stack([torch.full((4,), -inf), torch.zeros(4)])
    contract = PrecisionContract("softmax")
    right = torch.stack([torch.full((4,), 99.0), torch.full((4,), 0.25)])
    verdict = check(right, {"x": x}, contract)
    assert verdict.ok
    assert (verdict.claimed, verdict.unclaimed, verdict.elements) == (4, 4, 8)
    assert "4 claimed" in verdict.reason
    assert "4 unclaimed" in verdict.reason
    right[1, 2] = 0.5
    broken = check(right, {"x": x}, contract)
    assert not broken.ok
    assert broken.violations == 1
    assert "1 of 4 claimed results break the contract" in broken.reason
    assert "4 unclaimed" in broken.reason


def test_a_verdict_that_claims_nothing_fails() -> None:
    verdict = check(
        torch.zeros(1, 3), {"x": torch.full((1, 3), -inf)}, PrecisionContract("softmax")
    )
    assert not verdict.ok
    assert verdict.violations == verdict.claimed == 0
    assert "claims nothing" in verdict.reason
    assert check(torch.zeros(0, 3), {"x": torch.zeros(0, 3)}, PrecisionContract("softmax")).ok


def test_a_search_that_never_claims_anything_fails_too() -> None:
    contract = PrecisionContract("softmax")
    nothing = st.just({"x": torch.full((1, 3), -inf)})
    some = st.sampled_from([{"x": torch.full((1, 3), -inf)}, {"x": torch.zeros(1, 3)}])
    with pytest.raises(AssertionError, match="claims nothing of any"):
        differential_test(
            lambda x: x.softmax(-1), contract=contract, strategies=nothing, profile=Profile("s", 5)
        )
    result = search(lambda x: x.softmax(-1), contract, strategies=some, profile=Profile("s", 20))
    assert result.violation is None
    assert result.tally.claimed % 3 == 0
    assert 0 < result.tally.claimed < result.tally.outputs


def test_the_convention_of_overflow_is_a_fault_that_a_search_finds() -> None:
    fault = FAULTS["other_overflow"]
    for storage in ("fp8_e4m3", "fp8_e5m2", "fp16"):
        for op in ("matmul", "rms_norm", "swiglu"):
            contract = PrecisionContract(op, storage=storage)
            assert fault.applies_to(contract)

            def wrong(contract: PrecisionContract = contract, **inputs: Any) -> Tensor:
                return emulate(inputs, contract, fault)

            found = search(wrong, contract, strategies=["extremes"], shrink=False)
            assert found.violation is not None, (storage, op)
    assert not fault.applies_to(PrecisionContract("matmul", storage="bf16"))
    assert not fault.applies_to(PrecisionContract("softmax", storage="fp16"))


def test_overflow_of_operands_quantised_on_the_way_in() -> None:
    """bf16 activations cast to e4m3 without a scale: 600 becomes 448."""
    contract = PrecisionContract(
        "matmul", storage="bf16", compute="fp8_e4m3", casts=("inputs", "output")
    )
    inputs = {"a": torch.tensor([[600.0]]).bfloat16(), "b": torch.ones(1, 1).bfloat16()}
    assert check(torch.tensor([[448.0]]).bfloat16(), inputs, contract).ok
    assert not check(torch.tensor([[600.0]]).bfloat16(), inputs, contract).ok
    assert FP16.overflow == "inf"


def test_values_summed_before_they_are_divided_may_overflow() -> None:
    """As online softmax does: honest code is infinite where the mean of the values is not."""
    large = torch.finfo(torch.float32).max
    v = torch.tensor([[[large], [large], [1.0]]])
    inputs = {"q": torch.zeros(1, 1, 1), "k": torch.zeros(1, 3, 1), "v": v, "causal": False}
    contract = PrecisionContract("attention")
    late = torch.tensor([[[inf]]])
    verdict = check(late, inputs, contract)
    assert (verdict.violations, verdict.claimed) == (0, 0)
    assert not check((v / 3).sum(1, keepdim=True), inputs, contract).violations
    rounded = PrecisionContract("attention", casts=("probabilities", "output"))
    assert check(late, inputs, rounded).violations
    assert check((v / 3).sum(1, keepdim=True), inputs, rounded).ok


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_closed_bounds_at_the_ends_of_logits(op: str) -> None:
    """Never NaN but where the true value is: a row masked whole, and logits as far apart as go."""
    large = torch.finfo(torch.float32).max
    x = torch.tensor([[-inf, -inf, -inf], [large, -large, 0.0], [1.0, -large, 0.0]])
    bound = error_bound(PrecisionContract(op), {"x": x})
    truth = reference(op, {"x": x}).value
    assert bool((bound.isnan() <= truth.isnan()).all())
    last = bound[2].min() if bound.ndim > 1 else bound[2]
    assert last < 1e-5


def test_a_gelu_may_double_before_it_halves() -> None:
    """Torch's vectorised one gives infinity above half of the largest number, never below."""
    largest = torch.finfo(torch.float32).max
    contract = PrecisionContract("gelu", function_ulp=8.0)
    for share, permitted in ((0.51, True), (0.49, False)):
        x = torch.full((16,), share * largest)
        assert check(torch.nn.functional.gelu(x), {"x": x}, contract).ok
        assert check(torch.full((16,), inf), {"x": x}, contract).ok is permitted
