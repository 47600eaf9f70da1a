"""Search, differential tests, reproducers, explanations and fault scores."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.contracts import BITLENS, BITLENS_BF16, HUGGINGFACE_LLAMA_BF16
from bitlens.precision.differential import ReferenceBroken, differential_test
from bitlens.precision.emulation import emulate
from bitlens.precision.explanation import explain
from bitlens.precision.fault_score import fault_score, faulty
from bitlens.precision.faults import FAULTS, Fault
from bitlens.precision.judges import judge_by
from bitlens.precision.reproducer import reproducer
from bitlens.precision.search import Profile, search
from bitlens.precision.strategies import Random, Recipe
from hypothesis import strategies as st

Tensor = torch.Tensor
NORM = PrecisionContract("rms_norm", storage="bf16")
SHORT = Profile("short", 50)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return (x.float() * scale * weight.float()).to(x.dtype)


def _llama_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return weight * (x.float() * scale).to(x.dtype)


def test_correct_code_passes_and_is_accounted_for() -> None:
    result = differential_test(_norm, contract=NORM, profile=SHORT)
    assert result.violation is None
    assert result.tally.examples >= SHORT.examples
    assert result.hardest is not None
    # Where a square overflows fp32 the contract permits the 0 that follows, many ULP away.
    usual = ["random", "constant"]
    near = differential_test(_norm, contract=NORM, profile=SHORT, strategies=usual)
    assert near.tally.largest_ulp <= 0.51


def test_each_norm_keeps_its_own_contract_only() -> None:
    """Hugging Face's Llama rounds before the weight; neither order hides behind the other's."""
    llama = HUGGINGFACE_LLAMA_BF16["rms_norm"]
    differential_test(_llama_norm, contract=llama, profile=SHORT)
    for fn, contract in ((_norm, llama), (_llama_norm, NORM)):
        with pytest.raises(AssertionError, match="lies outside of the permitted"):
            differential_test(fn, contract=contract, profile=SHORT)


def test_a_violation_is_shrunk() -> None:
    result = search(_llama_norm, NORM, profile=SHORT)
    assert result.violation is not None
    inputs = result.violation.inputs
    assert inputs["x"].numel() <= 16
    # The witnesses are what it was shrunk from.
    assert len(result.violation.witnesses) > 1


def test_the_fault_and_its_place_are_named() -> None:
    with pytest.raises(AssertionError) as failure:
        differential_test(_llama_norm, contract=NORM, profile=SHORT)
    assert re.search(
        r"extra_cast \(rounds between\) gives the bits of ([\d,]+) of the \1 elements that tell",
        str(failure.value),
    )
    assert "keeps the contract with casts=('normalized', 'output')" in str(failure.value)


@pytest.mark.parametrize("name", ["truncating_cast", "low_precision_accumulator", "flush_to_zero"])
def test_emulated_faults_are_found_and_explained(name: str) -> None:
    result = search(faulty(NORM, FAULTS[name]), NORM, profile=SHORT)
    assert result.violation is not None
    cause = explain(result.violation, NORM)
    assert cause is not None
    assert cause.agreement == 1
    assert cause.faults == (name,)
    assert cause.explained == cause.telling > 0


def test_a_pair_of_faults_is_named() -> None:
    both = Fault(
        "both",
        "casts toward zero; sums too narrowly",
        lambda contract, execution: FAULTS["low_precision_accumulator"].bent(
            contract, FAULTS["truncating_cast"].bend(contract, execution)
        ),
    )
    result = search(faulty(NORM, both), NORM, profile=SHORT)
    assert result.violation is not None
    cause = explain(result.violation, NORM)
    assert cause is not None
    assert set(cause.faults) == {"truncating_cast", "low_precision_accumulator"}
    assert cause.explained == cause.telling > 0
    assert cause.agreement == 1


def test_the_all_bf16_norm_is_named() -> None:
    """RMSNorm by eager operations in bf16: a missing upcast, whose means are rounded once."""

    def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))

    result = search(norm, NORM)
    assert result.violation is not None
    cause = explain(result.violation, NORM)
    assert cause is not None
    assert cause.faults[0] == "missing_upcast_eager"
    # What is left is torch's bf16 rsqrt, which misses the nearest number now and then.
    assert cause.explained > 0.8 * cause.telling


def test_a_fault_that_is_merely_nearer_is_no_cause() -> None:
    """Squares summed in bf16 in numpy's order: no emulated fault gives those bits."""

    def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        total = x.square().cumsum(-1)[..., -1:]  # in bf16
        return (x.float() * torch.rsqrt(total.float() / x.shape[-1] + eps) * weight.float()).to(x)

    result = search(norm, NORM, profile=SHORT)
    assert result.violation is not None
    cause = explain(result.violation, NORM)
    if cause is not None:
        assert cause.agreement - cause.honest_agreement >= (1 - cause.honest_agreement) / 2
        assert {"missing_upcast", "low_precision_accumulator"} & set(cause.faults)


def test_reproducers_run() -> None:
    contract = PrecisionContract("silu", storage="bf16")
    result = search(faulty(contract, FAULTS["truncating_cast"]), contract, profile=SHORT)
    assert result.violation is not None
    script = reproducer(result.violation, contract)
    scope: dict[str, object] = {}
    exec(script.replace("print(check(", "verdict = (check("), scope)
    assert scope["verdict"] == result.violation.verdict


def test_reproducers_of_own_strategies_spell_out_tensors() -> None:
    contract = PrecisionContract("silu")
    own = st.just({"x": torch.tensor([1.0, 0.1])})
    result = search(lambda x: x, contract, strategies=own, profile=SHORT)
    assert result.violation is not None
    assert "torch.tensor([1.0, 0.10000000149011612], dtype=torch.float32)" in reproducer(
        result.violation, contract
    )


def test_a_reference_is_held_to_the_contract() -> None:
    def reference(**inputs: object) -> Tensor:
        return emulate(inputs, NORM)

    differential_test(_norm, reference=reference, contract=NORM, profile=SHORT)
    with pytest.raises(ReferenceBroken, match="the reference breaks"):
        differential_test(_norm, reference=_llama_norm, contract=NORM, profile=SHORT)


def test_code_that_overwrites_its_inputs_is_judged_by_what_it_got() -> None:
    def in_place(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        result = _norm(x, weight, eps)
        x.zero_()
        return result

    differential_test(in_place, contract=NORM, profile=SHORT)


def test_code_that_is_not_deterministic_is_named() -> None:
    calls = iter(range(10**6))

    def moody(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y = _norm(x, weight, eps)
        return y + 1 if next(calls) % 3 == 0 else y

    with pytest.raises(RuntimeError, match="gives different results for the same inputs"):
        search(moody, NORM, profile=SHORT)


def test_errors_of_the_implementation_come_through() -> None:
    def broken(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        raise KeyError("no such kernel")

    with pytest.raises(KeyError, match="no such kernel"):
        search(broken, NORM, profile=SHORT)


def test_results_of_another_shape_are_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        search(lambda x, weight, eps: x[..., :0], NORM, profile=SHORT)


def test_the_same_seed_searches_the_same_inputs() -> None:
    first, second = (search(_norm, NORM, profile=SHORT).tally for _ in range(2))
    assert dataclasses.asdict(first) == dataclasses.asdict(second)


@pytest.mark.parametrize("bound", ["worst_case", "probabilistic"])
def test_closed_form_bounds_judge_too(bound: str) -> None:
    contract = PrecisionContract("matmul")
    judge = judge_by(contract, bound)  # type: ignore[arg-type]
    a = Recipe((2, 64), "fp32", Random(1, None, (-2, 2))).build()
    b = Recipe((64, 3), "fp32", Random(2, None, (-2, 2))).build()
    honest = judge(a @ b, {"a": a, "b": b})
    assert honest.ok
    assert 0 < honest.utilisation < 1
    assert not judge((a @ b) * 1.001, {"a": a, "b": b}).ok


def test_the_histogram_counts_every_output_and_shows_truncation() -> None:
    contract = PrecisionContract("silu", storage="bf16")

    def silu(x: Tensor) -> Tensor:
        return torch.nn.functional.silu(x.float()).to(x.dtype)

    tally = search(silu, contract, profile=SHORT, truth="fp64").tally
    assert sum(tally.histogram) == tally.outputs
    assert abs(tally.bias_ulp) < 0.1


def _scored() -> list[tuple[str, PrecisionContract]]:
    families = {"fp32": BITLENS, "bf16": BITLENS_BF16, "hf": HUGGINGFACE_LLAMA_BF16}
    ops = ["rms_norm", "softmax", "rope", "swiglu"]
    return [(f"{op}-{name}", family[op]) for name, family in families.items() for op in ops]


@pytest.mark.parametrize("contract", [pytest.param(c, id=name) for name, c in _scored()])
def test_the_ci_profile_catches_every_fault_that_shows(contract: PrecisionContract) -> None:
    score = fault_score(contract)
    assert not score.missed
    assert score.score == 1
    applicable = {name for name, fault in FAULTS.items() if fault.applies_to(contract)}
    assert applicable == set(score.caught) | set(score.indistinguishable)


def test_unknown_faults_are_named() -> None:
    with pytest.raises(ValueError, match="nonsense: no such fault"):
        fault_score(NORM, faults=["nonsense"])


def test_a_blind_search_scores_low() -> None:
    """The negative control: constants alone cannot show lost subnormals."""
    score = fault_score(NORM, strategies=["constant"], profile=SHORT)
    assert "flush_to_zero" in score.missed
