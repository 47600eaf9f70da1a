"""precision/binding.py: kernels as they are called, in check, in a search and under pytest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.precision import (
    BindingError,
    ExampleCall,
    PrecisionContract,
    bind,
    check,
    differential_test,
)
from bitlens.precision.inputs import InputsError
from bitlens.precision.search import Profile, arguments_needed, arguments_taken

Tensor = torch.Tensor
pytest_plugins = ["pytester"]

NORM, SILU = (
    PrecisionContract("rms_norm", storage="bf16"),
    PrecisionContract("silu", storage="bf16"),
)
LAYER = PrecisionContract("layer_norm")
SHORT = Profile("short", 20)


def _norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    y = x.float() * (x.float().square().mean(-1, keepdim=True) + eps).rsqrt()
    return (y if weight is None else y * weight.float()).to(x.dtype)


def renamed(hidden: Tensor, gamma: Tensor, variance_epsilon: float = 1e-6) -> Tensor:
    return _norm(hidden, gamma, variance_epsilon)


def wrong(hidden: Tensor, gamma: Tensor, variance_epsilon: float = 1e-6) -> Tensor:
    return _norm(hidden, None, variance_epsilon) * gamma


NAMES = {"hidden": "x", "gamma": "weight", "variance_epsilon": "eps"}


def test_parameters_of_other_names() -> None:
    assert differential_test(renamed, contract=NORM, names=NAMES, profile=SHORT).left_out == ()
    with pytest.raises(AssertionError, match="wrong breaks PrecisionContract"):
        differential_test(wrong, contract=NORM, names=NAMES, profile=SHORT)
    inputs = {"hidden": torch.randn(4, 64).bfloat16(), "gamma": torch.randn(64).bfloat16()}
    assert check(renamed(**inputs), inputs, NORM, names=NAMES).ok
    assert not check(wrong(**inputs), inputs, NORM, names=NAMES).ok


def test_what_a_kernel_needs_is_always_given_and_what_it_lacks_is_left_out() -> None:
    bound = bind(renamed, NORM, NAMES)
    assert arguments_taken(bound, "rms_norm") == {"x", "weight", "eps"}
    assert arguments_needed(bound) == {"x", "weight"}

    def without_weight(x: Tensor, eps: float = 1e-6) -> Tensor:
        return _norm(x, None, eps)

    assert differential_test(without_weight, contract=NORM, profile=SHORT).left_out == ("weight",)
    plain = {"x": torch.randn(4, 64).bfloat16()}
    assert check(without_weight(**plain), plain, NORM).ok
    assert not check(without_weight(**plain), plain | {"weight": torch.full((64,), 2.0)}, NORM).ok


def test_layer_norm_without_bias_or_weight() -> None:
    def norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, None, eps)

    assert differential_test(norm, contract=LAYER, profile=SHORT).left_out == ("bias",)


def test_positions_for_a_function_that_has_no_names() -> None:
    sigmoid = PrecisionContract("sigmoid")
    differential_test(torch.sigmoid, contract=sigmoid, names=("x",), profile=SHORT)
    with pytest.raises(AssertionError):
        differential_test(torch.tanh, contract=sigmoid, names=("x",), profile=SHORT)


def test_an_example_call() -> None:
    x, weight = torch.randn(4, 64).bfloat16(), torch.randn(64).bfloat16()
    inputs = {"x": x, "weight": weight, "eps": 1e-6}

    def kernel(weight: Tensor, x: Tensor, mode: str, *, e: float) -> Tensor:
        assert mode == "exact"
        return _norm(x, weight, e)

    call = ExampleCall(inputs, (weight, x, "exact"), {"e": 1e-6})
    assert differential_test(kernel, contract=NORM, names=call, profile=SHORT).violation is None
    with pytest.raises(BindingError, match="none of its inputs"):
        bind(kernel, NORM, ExampleCall(inputs, (x.clone(), weight)))
    with pytest.raises(BindingError, match="does not tell eps from other"):
        bind(kernel, NORM, ExampleCall(inputs | {"other": 1e-6}, (weight, x, 1e-6)))


def in_place(x: Tensor) -> None:
    x.copy_(torch.nn.functional.silu(x.float()))


def half_written(x: Tensor, out: Tensor) -> None:
    out[..., : x.shape[-1] - 1] = torch.nn.functional.silu(x.float())[..., :-1]


def written(x: Tensor, out: Tensor) -> None:
    out.copy_(torch.nn.functional.silu(x.float()))


def test_results_that_are_written() -> None:
    assert differential_test(in_place, contract=SILU, result="x", profile=SHORT).violation is None
    assert differential_test(written, contract=SILU, out="out", profile=SHORT).violation is None
    with pytest.raises(AssertionError, match="nan"):
        differential_test(half_written, contract=SILU, out="out", profile=SHORT)
    with pytest.raises(InputsError, match=r'NoneType came back.*result="x"'):
        differential_test(in_place, contract=SILU, profile=SHORT)


def test_one_of_several_results() -> None:
    def with_statistic(x: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
        return _norm(x, None, eps), x.float().square().mean(-1)

    assert differential_test(with_statistic, contract=NORM, result=0, profile=SHORT)
    inputs = {"x": torch.randn(4, 64).bfloat16()}
    assert check(with_statistic(**inputs), inputs, NORM, result=0).ok
    with pytest.raises(InputsError, match="2 results came back; say which"):
        check(with_statistic(**inputs), inputs, NORM)
    with pytest.raises(InputsError, match="has shape"):
        check(with_statistic(**inputs), inputs, NORM, result=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": {"hidden": "y", "gamma": "weight", "variance_epsilon": "eps"}}, "has no y"),
        ({"names": {"hidden": "x", "gama": "weight"}}, "no parameter gama"),
        ({"names": {"hidden": "x"}}, "the kernel needs gamma"),
        ({"names": {"gamma": "weight"}}, "the kernel needs hidden"),
        ({"names": ("weight", "eps")}, "nothing takes x"),
        ({"names": NAMES, "result": "bias"}, "not given rms_norm's 'bias'"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BindingError, match=message):
        bind(renamed, NORM, **options)


def test_in_a_test_of_pytests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest
import torch
from bitlens.precision.contract import PrecisionContract

SILU = PrecisionContract("silu", storage="bf16")

def silu(hidden):
    return torch.nn.functional.silu(hidden.float()).to(hidden.dtype), None

def in_place(x):
    x.copy_(torch.nn.functional.silu(x.float()))

def gelu(hidden):
    return torch.nn.functional.gelu(hidden.float()).to(hidden.dtype), None

@pytest.mark.precision(contract=SILU, strategies=["random"], names={"hidden": "x"}, result=0)
@pytest.mark.parametrize("kernel", [silu, gelu])
def test_marked(precision, kernel):
    precision.check(kernel)

@pytest.mark.precision(contract=SILU, strategies=["random"])
def test_called(precision):
    precision.check(in_place, result="x")
    precision.check(silu, names={"hidden": "x"}, result=0)
"""
    )
    result = pytester.runpytest_inprocess("-p", "bitlens_pytest", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
