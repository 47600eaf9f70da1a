"""precision/bounds: correct code never exceeds them, and some of it comes close."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from bitlens.precision.arithmetic.growth import confidence_for, product_growth
from bitlens.precision.bounds import error_bound, gamma, gamma_probabilistic
from bitlens.precision.bounds.rounding_model import model_of
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.exact import Reference, reference
from bitlens.precision.formats import round_to
from bitlens.precision.reals.definitions import arguments_of
from bitlens.precision.strategies.inputs import inputs_for
from hypothesis import given, settings, target
from hypothesis import strategies as st
from support.every_operation import CORRECT, FUNCTION_ULP, KINDS, Inputs, draw, each, each_with

Tensor = torch.Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PAIRS = each_with(CORRECT, DTYPES, "bf16")

# Thirty parameters each: a fraction of the profile's examples is enough for all of them together.
FEWER = settings(max_examples=settings().max_examples // 3)


def _utilisation(actual: Tensor, truth: Reference, bound: Tensor) -> float:
    """The largest share of the bound that is certainly used: the reference's own error aside.

    0 / 0 and rows of attention that see no key have no real value, so nothing bounds them. The loss
    of an ignored row is 0 with a bound of 0: any error there is infinitely much of it.
    """
    error = ((actual.double() - truth.value).abs() - truth.error).clamp(min=0.0)
    free = bound.isinf() | truth.value.isnan() | ((bound == 0) & (error == 0))
    used = torch.where(free, 0.0, error / bound)
    assert not bool(used.isnan().any())
    return float(used.max())


def _runs(op: str, storage: str, inputs: Inputs) -> Iterator[tuple[str, float]]:
    """Each correct implementation's utilisation of its contract's bound."""
    truth, arguments = reference(op, inputs), arguments_of(op, inputs)
    bounds: dict[float, Tensor] = {}
    for name, implementation in CORRECT[op].items():
        allowed = FUNCTION_ULP.get(name, 2.0)
        if allowed not in bounds:
            contract = PrecisionContract(op, storage=storage, function_ulp=allowed)
            bounds[allowed] = error_bound(contract, inputs)
        actual = implementation(**arguments).to(DTYPES[storage])
        yield name, _utilisation(actual, truth, bounds[allowed])


@pytest.mark.parametrize(("op", "storage"), PAIRS)
@FEWER
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**20))
def test_search_finds_no_violation_by_correct_code(
    op: str, storage: str, kind: str, seed: int
) -> None:
    inputs = draw(op, kind, seed, DTYPES[storage])
    used = dict(_runs(op, storage, inputs))
    target(max(used.values()))
    assert max(used.values()) <= 1.0, used


@pytest.mark.parametrize(("op", "storage"), PAIRS)
@FEWER
@given(data=st.data())
def test_nor_among_the_inputs_that_part_right_from_wrong(
    op: str, storage: str, data: st.DataObject
) -> None:
    drawn = data.draw(inputs_for(PrecisionContract(op, storage=storage), max_size=65))
    used = dict(_runs(op, storage, drawn))
    target(max(used.values()))
    assert max(used.values()) <= 1.0, used


@pytest.mark.parametrize(("op", "storage"), PAIRS)
def test_no_bound_is_idle(
    op: str, storage: str, record_property: Callable[[str, object], None]
) -> None:
    worst: dict[str, float] = {}
    for kind in KINDS:
        for seed in range(3):
            for name, used in _runs(op, storage, draw(op, kind, seed, DTYPES[storage])):
                worst[name] = max(worst.get(name, 0.0), used)
    record_property("utilisation", worst)
    assert 0.01 < max(worst.values()) <= 1.0, worst


def test_stagnation_reaches_the_worst_case_and_defeats_the_probabilistic_bound() -> None:
    terms = torch.full((1, 200), 2.0**-12 * (1 - 2.0**-9))
    terms[0, 0] = 1.0
    inputs = {"a": terms, "b": terms.T.contiguous()}
    contract = PrecisionContract("matmul")
    actual, truth = CORRECT["matmul"]["chain"](**inputs), reference("matmul", inputs)
    assert 0.9 < _utilisation(actual, truth, error_bound(contract, inputs)) <= 1
    assert _utilisation(actual, truth, error_bound(contract, inputs, "probabilistic")) > 1


@pytest.mark.parametrize("op", ["matmul", "rms_norm", "layer_norm", "softmax", "logsumexp"])
def test_random_data_keeps_the_probabilistic_bound_which_is_tighter(op: str) -> None:
    contract = PrecisionContract(op)
    for seed in range(10):
        inputs = draw(op, "normal", seed, torch.float32)
        truth = reference(op, inputs)
        likely = error_bound(contract, inputs, "probabilistic")
        assert bool((likely <= error_bound(contract, inputs)).all())
        for name in ("chain", "torch"):
            assert _utilisation(CORRECT[op][name](**inputs), truth, likely) <= 1
    long = {"a": torch.randn(1, 20_000), "b": torch.randn(20_000, 1)}
    assert error_bound(PrecisionContract("matmul"), long, "probabilistic") < 0.2 * error_bound(
        PrecisionContract("matmul"), long
    )


def _hugging_face_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    normalized = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * normalized.to(x.dtype)


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**20))
def test_declared_casts_are_paid_for_and_undeclared_ones_are_not(kind: str, seed: int) -> None:
    inputs = draw("rms_norm", kind, seed, torch.bfloat16)
    truth = reference("rms_norm", inputs)
    actual = _hugging_face_rms_norm(**inputs)
    declared = PrecisionContract("rms_norm", storage="bf16", casts=("normalized", "output"))
    assert _utilisation(actual, truth, error_bound(declared, inputs)) <= 1


def test_an_undeclared_cast_exceeds_the_bound() -> None:
    inputs = draw("rms_norm", "normal", 1, torch.bfloat16)
    truth = reference("rms_norm", inputs)
    once = PrecisionContract("rms_norm", storage="bf16")
    used = _utilisation(_hugging_face_rms_norm(**inputs), truth, error_bound(once, inputs))
    assert used > 1


def _tf32_matmul(a: Tensor, b: Tensor) -> Tensor:
    return round_to(a.double(), "tf32").float() @ round_to(b.double(), "tf32").float()


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**19).map(lambda n: 2 * n))
def test_inputs_cast_to_tf32_keep_their_contract_and_break_fp32s(kind: str, seed: int) -> None:
    inputs = draw("matmul", kind, seed, torch.float32)
    del inputs["bias"]
    truth, actual = reference("matmul", inputs), _tf32_matmul(**inputs)
    contract = PrecisionContract("matmul", compute="tf32", casts=("inputs", "output"))
    assert _utilisation(actual, truth, error_bound(contract, inputs)) <= 1
    if kind == "normal" and inputs["a"].shape[-1] < 100:
        assert _utilisation(actual, truth, error_bound(PrecisionContract("matmul"), inputs)) > 1


@pytest.mark.parametrize("order", ["sequential", "pairwise", "blocked:16", "pairs:4:16"])
def test_promised_orders_tighten_the_bound(order: str) -> None:
    inputs = draw("matmul", "stagnant", 2, torch.float32)
    any_order = error_bound(PrecisionContract("matmul"), inputs)
    promised = error_bound(PrecisionContract("matmul", order=order), inputs)
    assert bool((promised <= any_order).all())
    if order == "pairwise":
        truth = reference("matmul", inputs)
        assert _utilisation(CORRECT["matmul"]["tree"](**inputs), truth, promised) <= 1
        assert _utilisation(CORRECT["matmul"]["chain"](**inputs), truth, promised) > 1


def test_bf16_products_enter_an_fp32_accumulator_unrounded() -> None:
    one = {"a": torch.ones(1, 1), "b": torch.full((1, 1), 1 + 2.0**-7)}
    bound = error_bound(PrecisionContract("matmul"), one)
    assert bound.item() < 2.0**-60
    one["b"] += 2.0**-20
    one["a"] += 2.0**-20
    assert error_bound(PrecisionContract("matmul"), one).item() >= 2.0**-24


def test_possible_overflow_is_not_bounded() -> None:
    x = torch.full((1, 8), 1e20)
    norm = {"x": x, "weight": torch.ones(8)}
    assert error_bound(PrecisionContract("rms_norm"), norm).isinf().all()
    product = {"a": torch.full((1, 2), 300.0), "b": torch.full((2, 1), 300.0)}
    assert error_bound(PrecisionContract("matmul", storage="fp16"), product).isinf().all()


def test_growth_of_rounding_errors() -> None:
    u = 2.0**-24
    assert gamma(100, u) == 100 * u / (1 - 100 * u)
    assert gamma(2**8, 2.0**-8) == math.inf
    assert product_growth(100, u) <= gamma(100, u)
    assert math.isfinite(product_growth(2**8, 2.0**-8))
    n, lam = 10_000, 5.0
    assert gamma_probabilistic(n, u, lam) == math.expm1(
        lam * math.sqrt(n) * u + n * u * u / (1 - u)
    )
    assert gamma_probabilistic(n, u, lam) < gamma(n, u)
    lam = confidence_for(1e-6, 1000, u)
    assert 1000 * 2 * math.exp(-(lam**2) * (1 - u) ** 2 / 2) == pytest.approx(1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_product_growth_bounds_products_of_either_kind(n: int) -> None:
    u = 2.0**-8
    bound = product_growth(n, u)
    for ups in range(n + 1):
        assert abs((1 + u) ** ups * (1 - u) ** (ups - n) - 1) <= bound * (1 + 1e-12)
        assert abs((1 - u) ** ups * (1 + u) ** (ups - n) - 1) <= bound * (1 + 1e-12)


def test_wrong_arguments_name_themselves() -> None:
    inputs = {"x": torch.ones(2, 4), "weight": torch.ones(4)}
    with pytest.raises(ValueError, match="probabilistic"):
        error_bound(PrecisionContract("rms_norm"), inputs, "likely")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="failure_probability"):
        error_bound(PrecisionContract("rms_norm"), inputs, "probabilistic", failure_probability=0.0)
    with pytest.raises(ValueError, match="shapes"):
        error_bound(PrecisionContract("rms_norm"), {**inputs, "weight": torch.ones(3)})


def test_a_contract_becomes_a_model() -> None:
    contract = PrecisionContract("matmul", storage="bf16", output="fp32", order="pairwise")
    model = model_of(contract)
    assert model.casts["output"].name == "fp32"
    assert model.depth(100) == 7
    assert model.reduction(1, exact_terms=True) == 0


@pytest.mark.parametrize("op", each(CORRECT))
@given(seed=st.integers(0, 2**20))
def test_flushing_is_paid_for_where_the_contract_allows_it(op: str, seed: int) -> None:
    inputs = draw(op, "normal", seed, torch.float32)
    shrunk = {"a", "x", "v", "up"} & inputs.keys()
    for name in shrunk:
        inputs[name] = inputs[name] * 2.0**-126
    contract = PrecisionContract(op, may_flush=True, function_ulp=8.0)
    truth, bound = reference(op, inputs), error_bound(contract, inputs)
    runs: list[Tensor] = []
    arguments = arguments_of(op, inputs)  # whose choices are not made among flushed numbers
    torch.set_flush_denormal(True)
    try:
        for implementation in CORRECT[op].values():
            actual = implementation(**arguments)
            runs.append(torch.where(actual.abs() < 2.0**-126, 0.0, actual))
    finally:
        torch.set_flush_denormal(False)
    assert all(_utilisation(flushed, truth, bound) <= 1 for flushed in runs)
    strict = error_bound(PrecisionContract(op, function_ulp=8.0), inputs)
    assert bool((strict <= bound).all())
