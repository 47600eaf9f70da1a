"""precision/condition.py against derivatives from autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from bitlens.precision.condition import condition_number
from bitlens.precision.operations import OPERATIONS
from bitlens.precision.pytest_plugin.precision_test import _largest_condition
from support.every_operation import KINDS, draw

Tensor = torch.Tensor


def _by_autograd(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """sum_j |x_j dy_i/dx_j| / |y_i|."""
    x = x.double()
    y = fn(x)
    slopes = torch.autograd.functional.jacobian(fn, x).reshape(*y.shape, -1)
    return (slopes * x.flatten()).abs().sum(-1) / y.abs()


def _gelu_tanh(x: Tensor) -> Tensor:
    return x * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))


@pytest.mark.parametrize("kind", KINDS)
def test_exact_condition_numbers_are_autograds(kind: str) -> None:
    x, other = (draw("silu", kind, seed, torch.float32)["x"][:2, :9] for seed in (1, 2))
    n = min(x.shape[-1], other.shape[-1])
    x, other, w = x[:, :n], other[:, :n], other[0, :n]

    def same(
        op: str, inputs: dict[str, object], fn: Callable[[Tensor], Tensor], at: Tensor
    ) -> None:
        torch.testing.assert_close(
            condition_number(op, inputs), _by_autograd(fn, at), rtol=1e-6, atol=0
        )

    b, mild = other.T.double(), (x / 8).clamp(-20, 20)
    same("matmul", {"a": x, "b": other.T}, lambda t: t @ b, x)
    same(
        "rms_norm",
        {"x": x, "weight": w, "eps": 1e-5},
        lambda t: t * (t.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w,
        x,
    )
    same("softmax", {"x": mild}, lambda t: t.softmax(-1), mild)
    same("logsumexp", {"x": x}, lambda t: t.logsumexp(-1), x)
    same("silu", {"x": mild}, F.silu, mild)
    same("gelu", {"x": mild, "approximate": "tanh"}, _gelu_tanh, mild)
    same("swiglu", {"gate": mild, "up": other}, lambda t: F.silu(t) * other.double(), mild)


def test_triangle_inequalities_hold_and_lose_at_most_a_factor() -> None:
    x, w, b = torch.randn(2, 9) + 3, torch.randn(9), torch.randn(9)
    bound = condition_number("layer_norm", {"x": x, "weight": w, "bias": b, "eps": 1e-5})
    exact = _by_autograd(lambda t: F.layer_norm(t, (9,), w.double(), b.double(), 1e-5), x)
    assert bool((bound >= exact * (1 - 1e-9)).all())
    assert float((bound / exact).median()) < 3

    q, k, v = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    inputs = {"q": q, "k": k, "v": v}
    bound = condition_number("attention", inputs)
    keys, values = k.double(), v.double()

    def by_q(t: Tensor) -> Tensor:
        return (t @ keys.mT * 4**-0.5).softmax(-1) @ values

    def by_v(t: Tensor) -> Tensor:
        return (q.double() @ keys.mT * 4**-0.5).softmax(-1) @ t

    exact = _by_autograd(by_q, q) + _by_autograd(by_v, v)
    assert bool((bound >= exact * (1 - 1e-9)).all())


def test_cancellation_is_ill_conditioned_and_sums_of_squares_are_not() -> None:
    a = torch.tensor([[1.0, -1.0, 2.0**-20]])
    assert condition_number("matmul", {"a": a, "b": torch.ones(3, 1)}).item() > 2**20
    assert condition_number("matmul", {"a": a[:, :2], "b": torch.ones(2, 1)}).isinf().all()
    x = {"x": torch.randn(4, 64), "weight": torch.randn(64)}
    assert bool((condition_number("rms_norm", x) <= 2).all())


def test_rope_rotates_a_cancelling_pair() -> None:
    angle = torch.tensor([1], dtype=torch.int64)
    x = torch.tensor([[torch.tensor(1.0).sin().item(), torch.tensor(1.0).cos().item()]])
    kappa = condition_number("rope", {"x": x, "positions": angle, "theta": 10000.0})
    assert kappa[0, 0] > 1e6
    assert kappa[0, 1] == pytest.approx(1.0)


@pytest.mark.parametrize("op", OPERATIONS)
def test_shapes_are_the_outputs(op: str) -> None:
    from bitlens.precision.exact import reference

    inputs = draw(op, "normal", 3, torch.float32)
    kappa = condition_number(op, inputs)
    assert kappa.shape == reference(op, inputs).value.shape
    assert kappa.dtype == torch.float64
    assert not bool(kappa.isnan().any())
    assert bool((kappa >= 0).all())


def test_a_record_has_the_largest_finite_condition() -> None:
    """Outputs that cancel to 0 have none, be it some or all of them."""
    a = torch.tensor([[1.0, -1.0]])
    cancelled, kept = torch.ones(2, 1), torch.tensor([[3.0], [1.0]])
    assert _largest_condition("matmul", {"a": a, "b": cancelled}) is None
    both = {"a": a, "b": torch.cat([cancelled, kept], 1)}
    assert _largest_condition("matmul", both) == 2.0
