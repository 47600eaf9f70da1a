"""Derivatives of row operations: the NumPy oracle's bits, and fp64's values within a bound.

u is 2^-24. To first order an error is the sum of the roundings that each number takes part in.
"""

from __future__ import annotations

from typing import Any

import bitlens
import numpy as np
import pytest
import torch
from bitlens import _core
from bitlens.model.gradients import kernels
from bitlens.model.ops import kernels as forward
from support import fp32_oracle as oracle

DTYPES = [torch.float32, torch.bfloat16]
WIDTHS = [1, 15, 17, 256, 257, 576]
U = 2.0**-24
ONE = np.float32(1)


def _random(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(*shape, generator=generator) * scale).to(dtype)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def _round(x: np.ndarray[Any, Any], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(dtype)


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    _core.set_isa(request.param)
    return str(request.param)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", WIDTHS)
def test_rms_norm_whole_and_in_parts_is_the_spec(isa: str, dtype: torch.dtype, d: int) -> None:
    x, dy, weight = _random(5, d, dtype=dtype), _random(5, d, dtype=dtype) * 3, _random(d)
    wide, scale = x.float(), forward.rms_scale(x, 1e-5)
    n, s = (wide / scale).numpy(), scale.numpy()
    dn = dy.float() * weight
    dscale = (np.float32(0) - oracle.row_dot(dn.numpy(), n)[:, None]) / s
    through_scale = dscale / np.float32(d) * n
    dx, found = kernels.normalize_backward(dn, wide, scale)
    assert _same(found, torch.from_numpy(dscale))
    assert _same(dx, dn / scale)
    parts = kernels.rms_scale_backward(found, wide, scale)
    assert _same(parts, torch.from_numpy(through_scale))
    whole = kernels.rms_norm_backward(dy, x, weight, 1e-5)
    assert _same(whole, _round((dn / scale).numpy() + through_scale, dtype))
    assert _same(whole, forward.scaled(forward.add(dx, parts), 1.0, dtype))


@pytest.mark.parametrize("d", WIDTHS)
def test_rms_norm_is_near_fp64(d: int) -> None:
    """dn and n have one and gamma(d / 2 + 6) roundings, their dot product d / 16 + 6 more."""
    x, dy, weight = _random(7, d), _random(7, d) * 3, _random(d)
    exact = x.double().requires_grad_()
    scale = (exact.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    (exact / scale * weight.double()).backward(dy.double())
    assert exact.grad is not None
    dn, n = (dy.double() * weight).abs(), (exact / scale).abs().detach()
    roundings = d / 2 + d / 16 + 40
    bound = roundings * U * (dn + (dn * n).mean(-1, keepdim=True) * n) / scale.detach()
    error = (kernels.rms_norm_backward(dy, x, weight, 1e-5).double() - exact.grad).abs()
    assert (error <= bound).all()


def _slope(kind: str, g: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    reach = np.float32(80 if kind == "silu" else 10)
    t = np.clip(g, -reach, reach)
    if kind == "silu":
        z, dz = np.float32(0) - t, np.float32(-1)
    else:
        q, cubic = t * t, np.float32(float.fromhex("0x1.6e4e26p-5"))
        factor = np.float32(float.fromhex("-0x1.988454p+0"))
        z = factor * (t * oracle.fma(cubic, q, ONE))
        dz = factor * oracle.fma(np.float32(float.fromhex("0x1.12ba9ep-3")), q, ONE)
    e = oracle.exp(z)
    s = ONE / (ONE + e)
    slope: np.ndarray[Any, Any] = s * oracle.fma(t * (e * s), np.float32(0) - dz, ONE)
    return slope


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["silu", "gelu_tanh"])
def test_gated_activation_is_the_spec(isa: str, dtype: torch.dtype, kind: Any) -> None:
    gate, up, dpost = (_random(3, 67 + i, dtype=dtype, scale=9.0)[:, :67] for i in range(3))
    dgate, dup = kernels.gated_act_backward(kind, gate, up, dpost)
    g, d = gate.float().numpy(), dpost.float().numpy()
    act = forward.gated_act(kind, gate.float(), torch.ones(3, 67)).numpy()
    assert _same(dup, _round(d * act, dtype))
    assert _same(dgate, _round(d * up.float().numpy() * _slope(kind, g), dtype))


@pytest.mark.parametrize("kind", ["silu", "gelu_tanh"])
def test_slopes_are_near_fp64(kind: Any) -> None:
    """The slope is s (1 + t c z'), s = 1 / (1 + e) and c = e s = 1 - s.

    z has 6 roundings, so e = exp(z) is off by delta = (6 |z| + 3) u of itself, s by c delta + 2 u
    and c by s delta + 3 u; t c z' has 6 roundings more, the rest 3. Where the argument is limited,
    the constant differs from the slope by less than 2e-33.
    """
    gate = torch.cat([torch.linspace(-120, 120, 24001), torch.tensor([-1e30, 1e30, 0.0])])
    exact = gate.double().requires_grad_()
    if kind == "silu":
        z, dz = exact, torch.ones(len(gate))
    else:
        z = (8 / torch.pi) ** 0.5 * (exact + 0.044715 * exact**3)
        dz = (8 / torch.pi) ** 0.5 * (1 + 3 * 0.044715 * exact.detach().square())
    (slope,) = torch.autograd.grad((exact * torch.sigmoid(z)).sum(), exact)
    z = z.detach().clamp(-800, 800)
    s, c = torch.sigmoid(z), torch.sigmoid(-z)
    delta = (6 * z.abs() + 3) * U
    bound = (c * delta + 5 * U) * slope.abs()
    bound += s * c * gate.abs() * dz * (s * delta + 9 * U)
    dgate, _ = kernels.gated_act_backward(kind, gate, *torch.ones(2, len(gate)))
    assert ((dgate.double() - slope).abs() <= bound + 2e-33).all()


@pytest.mark.parametrize("cap", [1.0, 30.0])
def test_soft_cap_is_the_spec_and_near_fp64(isa: str, cap: float) -> None:
    """t = y / cap has the roundings of y and one more; 1 - t^2 and the product one each."""
    x, dy = _random(1001, scale=40.0), _random(1001)
    y = forward.soft_cap(x, cap)
    t = y.numpy() / np.float32(cap)
    found = kernels.soft_cap_backward(dy, y, cap)
    assert _same(found, torch.from_numpy(dy.numpy() * oracle.fma(np.float32(0) - t, t, ONE)))
    exact = torch.tanh(x.double() / cap)
    error = (found.double() - dy * (1 - exact.square())).abs()
    assert (error <= 16 * U * dy.abs()).all()


@pytest.mark.parametrize("n", WIDTHS)
def test_softmax_is_the_spec_and_masked_keys_take_no_part(isa: str, n: int) -> None:
    scores, dp = _random(6, n, scale=5.0), _random(6, n)
    scores[1, n // 2 :] = -torch.inf
    scores[2] = -torch.inf
    pattern = forward.softmax(scores)
    p, d = pattern.numpy(), dp.numpy()
    want = p * (d - oracle.row_dot(p, d)[:, None])
    got = kernels.softmax_backward(pattern, dp)
    assert _same(got, torch.from_numpy(want))
    longer = torch.nn.functional.pad(pattern, (0, 300)), torch.nn.functional.pad(dp, (0, 300))
    assert _same(kernels.softmax_backward(*longer)[:, :n], got)


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scaled_rounds_once(isa: str, dtype: torch.dtype, to: torch.dtype) -> None:
    x = _random(1001, dtype=dtype)
    assert _same(forward.scaled(x, 0.3, to), (x.float() * np.float32(0.3)).to(to))
    assert _same(forward.scaled(x, 1.0, to), x.to(to))


def test_threads_and_flush_to_zero_reach_no_bit() -> None:
    x, dy, weight = _random(400, 576), _random(400, 576, scale=1e-30), _random(576, scale=1e-9)
    want = None
    for threads, flush in [(1, False), (2, False), (4, False), (1, True), (4, True)]:
        bitlens.set_num_threads(threads)
        torch.set_flush_denormal(flush)
        got = torch.stack(
            [
                kernels.rms_norm_backward(dy, x, weight, 1e-5),
                *kernels.gated_act_backward("silu", x, dy, x),
                forward.scaled(dy, 1e-9, torch.float32),
            ]
        )
        want = got if want is None else want
        assert torch.equal(got.view(torch.int32), want.view(torch.int32))
    assert want is not None
    torch.set_flush_denormal(False)
    subnormal = (want != 0) & (want.abs() < torch.finfo(torch.float32).tiny)
    assert subnormal.flatten(1).any(1)[[0, 3]].all(), "the inputs must exercise subnormals"
