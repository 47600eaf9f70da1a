"""Row operations of every instruction set against the NumPy oracle, bitwise."""

from __future__ import annotations

import bitlens
import numpy as np
import pytest
import torch
from bitlens import _core
from hypothesis import given
from hypothesis import strategies as st
from support import fp32_oracle as oracle

DTYPES = [torch.float32, torch.bfloat16]
WIDTHS = [1, 15, 16, 17, 64, 255, 256, 257, 576]


def _code(x: torch.Tensor) -> int:
    return DTYPES.index(x.dtype)


def _same(a: torch.Tensor, b: torch.Tensor | np.ndarray) -> bool:
    """Equal bits, any NaN being equal to any other."""
    other = torch.as_tensor(b)
    assert a.dtype == other.dtype
    assert a.shape == other.shape
    word = torch.int32 if a.dtype == torch.float32 else torch.int16
    nan = a.isnan() & other.isnan()
    return bool(((a.view(word) == other.view(word)) | nan).all())


def _round(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(dtype)


def _random(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> torch.Tensor:
    seed = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(*shape, generator=seed) * scale).to(dtype)


def _rms_norm(
    x_THh: torch.Tensor,
    weight: torch.Tensor,
    residual: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, torch.Tensor]:
    """x [T, H, h] may be a slice of a wider buffer; `dtype` of the output where it is not x's."""
    rows, heads, d = x_THh.shape
    out = {
        "out": torch.empty(rows, heads, d, dtype=dtype or x_THh.dtype),
        "residual": torch.empty(rows, heads, d, dtype=x_THh.dtype),
        "scale": torch.empty(rows, heads),
        "normalized": torch.empty(rows, heads, d),
    }
    _core.rms_norm(
        x_THh,
        residual,
        weight,
        rows,
        heads,
        d,
        x_THh.stride(0),
        1e-5,
        _code(x_THh),
        _code(out["out"]),
        out["out"],
        heads * d,
        None if residual is None else out["residual"],
        out["scale"],
        out["normalized"],
    )
    return out


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    _core.set_isa(request.param)
    return str(request.param)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", WIDTHS)
def test_rms_norm_is_the_spec_with_and_without_residual(
    isa: str, dtype: torch.dtype, d: int
) -> None:
    buffer = _random(5, 3 * d + 7, dtype=dtype)
    x = buffer[:, : 3 * d].unflatten(1, (3, d))
    residual = _random(5, 3, d, dtype=dtype)
    weight = _random(d)
    for added in (None, residual):
        got = _rms_norm(x, weight, added)
        summed = x if added is None else (x.float() + added.float()).to(dtype)
        wide = summed.float().numpy()
        mean = oracle.row_sum(wide, squares=True) / np.float32(d)
        scale = np.sqrt(mean + np.float32(1e-5))
        normalized = wide / scale[..., None]
        assert _same(got["scale"], scale)
        assert _same(got["normalized"], normalized)
        assert _same(got["out"], _round(normalized * weight.numpy(), dtype))
        assert added is None or _same(got["residual"], summed)


def test_an_fp32_stream_beside_bf16_activations(isa: str) -> None:
    x, weight = _random(5, 1, 576), _random(576)
    residual = _random(5, 1, 576, dtype=torch.bfloat16)
    got = _rms_norm(x, weight, residual, torch.bfloat16)
    summed = x + residual.float()
    alone = _rms_norm(summed, weight)
    assert got["residual"].dtype == torch.float32
    assert _same(got["residual"], summed)
    assert _same(got["out"], alone["out"].bfloat16())
    total = torch.empty_like(x)
    _core.add(x, _code(x), residual, 1, x.numel(), total)
    assert _same(total, summed)
    rounded = _rms_norm(summed.bfloat16(), weight)  # the control: a stream in bf16
    assert not _same(got["out"], rounded["out"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_in_parts_has_the_bits_of_the_whole(isa: str, dtype: torch.dtype) -> None:
    x, weight = _random(7, 1, 333, dtype=dtype), _random(333)
    whole = _rms_norm(x, weight)
    normalized, out = torch.empty(7, 1, 333), torch.empty(7, 1, 333, dtype=dtype)
    scale = whole["scale"]
    _core.normalize(x, scale, 7, 333, _code(x), normalized)
    _core.norm_weight(normalized, weight, 7, 333, out, _code(out))
    assert _same(normalized, whole["normalized"])
    assert _same(out, whole["out"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("half", [1, 8, 17, 32])
def test_rope_rotates_halves_of_strided_heads(isa: str, dtype: torch.dtype, half: int) -> None:
    heads, d = 3, 2 * half
    x = _random(6, heads * d + 5, dtype=dtype)
    cos, sin = _random(9, half), _random(9, half, scale=0.5)
    positions = torch.tensor([0, 3, 8, 1, 1, 7])
    out = torch.empty(6, heads, d, dtype=dtype)
    arguments = (positions, cos, sin)
    _core.rope(x, _code(x), 6, heads, d, x.stride(0), *arguments, 9, out, heads * d)
    wide = x[:, : heads * d].float().numpy().reshape(6, heads, d)
    x1, x2 = wide[..., :half], wide[..., half:]
    c, s = cos.numpy()[positions][:, None], sin.numpy()[positions][:, None]
    want = np.concatenate([oracle.fma(x1, c, -(x2 * s)), oracle.fma(x2, c, x1 * s)], axis=-1)
    assert _same(out, _round(want, dtype))


def test_rope_refuses_a_position_outside_its_tables() -> None:
    x, table, position = _random(1, 4), _random(2, 2), torch.tensor([2])
    addresses = (position, table, table)
    with pytest.raises(IndexError, match="position 2 is outside the tables of 2 rows"):
        _core.rope(x, 0, 1, 1, 4, 4, *addresses, 2, x, 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [0, 1])
def test_gated_activation_rounds_once(isa: str, dtype: torch.dtype, kind: int) -> None:
    both = _random(4, 2 * 77, dtype=dtype, scale=3.0)
    gate, up = both[:, :77], both[:, 77:]
    out = torch.empty(4, 77, dtype=dtype)
    strides = (gate.stride(0), up.stride(0))
    _core.gated_act(kind, gate, up, 4, 77, *strides, _code(out), out, 77)
    g, one = gate.float().numpy(), np.float32(1)
    if kind == 0:
        z = np.float32(0) - g
    else:
        cubic = np.float32(float.fromhex("0x1.6e4e26p-5"))
        z = np.float32(float.fromhex("-0x1.988454p+0")) * (g * oracle.fma(cubic, g * g, one))
    act = g / (one + oracle.exp(z))
    assert _same(out, _round(act * up.float().numpy(), dtype))


def _rowwise(op: str, x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(len(x)) if op == "logsumexp" else torch.empty_like(x)
    getattr(_core, op)(x, *x.shape, out)
    return out


@pytest.mark.parametrize("n", [1, 16, 31, 256, 700])
def test_softmax_family(isa: str, n: int) -> None:
    x = _random(6, n, scale=8.0)
    x[1] = -torch.inf
    x[2, n // 2] = torch.nan
    x[3, : n // 2] = -torch.inf
    x[4, -1] = torch.inf
    pattern, top, total = oracle.softmax(x.numpy())
    log_total = torch.from_numpy(total).clone()
    _core.log(log_total, 6, log_total)
    assert _same(_rowwise("softmax", x), pattern)
    assert _same(_rowwise("logsumexp", x), torch.from_numpy(top) + log_total)
    shifted = x - torch.from_numpy(top)[:, None]
    assert _same(_rowwise("log_softmax", x), shifted - log_total[:, None])
    assert (_rowwise("softmax", x)[1] == 0).all()


@given(st.lists(st.floats(width=32), min_size=1, max_size=70))
def test_exp_is_the_spec_for_any_float(values: list[float]) -> None:
    x = torch.tensor(values)
    for name in _core.available_isas():
        _core.set_isa(name)
        out = torch.empty_like(x)
        _core.exp(x, len(x), out)
        assert _same(out, oracle.exp(x.numpy())), name


@given(st.lists(st.floats(width=32), min_size=1, max_size=70))
def test_tanh_is_the_spec_for_any_float(values: list[float]) -> None:
    x = torch.tensor(values)
    for name in _core.available_isas():
        _core.set_isa(name)
        out = torch.empty_like(x)
        _core.tanh(x, len(x), out)
        assert _same(out, oracle.tanh(x.numpy())), name


_CAPS = st.floats(2.0**-20, 2.0**20, width=32)


@given(st.lists(st.floats(width=32), min_size=1, max_size=70), _CAPS)
def test_soft_cap_is_the_spec_for_any_float(values: list[float], cap: float) -> None:
    x = torch.tensor(values)
    for name in _core.available_isas():
        _core.set_isa(name)
        out = torch.empty_like(x)
        _core.soft_cap(x, len(x), cap, out)
        assert _same(out, oracle.soft_cap(x.numpy(), cap)), name


@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False), _CAPS)
def test_soft_cap_keeps_the_order_up_to_ties(a: float, b: float, cap: float) -> None:
    x = torch.tensor(sorted([a, b]))
    out = torch.empty_like(x)
    _core.soft_cap(x, 2, cap, out)
    assert out[0] <= out[1]
    assert out.abs().max() <= cap


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rounds_once_and_may_overwrite(isa: str, dtype: torch.dtype) -> None:
    x, y = _random(1001, dtype=dtype), _random(1003, dtype=dtype)[:1001]
    want = (x.float() + y.float()).to(dtype)
    _core.add(x, _code(x), y, _code(y), 1001, x)
    assert _same(x, want)


def test_cast_is_exact_or_rounds_to_nearest_even(isa: str) -> None:
    """Every bf16 number, and every fp32 number near the middle between two of them."""
    torch.set_flush_denormal(True)
    halves = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    bits = halves.view(torch.int16).to(torch.int32) << 16
    wide = torch.empty(65536)
    _core.cast(halves, 1, 65536, wide, 0)
    assert _same(wide, bits.view(torch.float32))
    for offset in (0x7FFF, 0x8000, 0x8001):
        x, y = (bits + offset).view(torch.float32), torch.empty(65536, dtype=torch.bfloat16)
        _core.cast(x, 0, 65536, y, 1)
        up = (halves.view(torch.int16).to(torch.int32) & 1) * (offset == 0x8000) + (offset > 0x8000)
        want = (halves.view(torch.int16).to(torch.int32) + up).to(torch.int16)
        finite = x.isfinite()
        assert torch.equal(y.view(torch.int16)[finite], want[finite])
        assert bool(y[x.isnan()].isnan().all())


def test_threads_and_flush_to_zero_reach_no_bit() -> None:
    x, weight = _random(400, 1, 576, scale=1e-21), _random(576, scale=1e-20)
    want = None
    for threads, flush in [(1, False), (2, False), (4, False), (1, True), (4, True)]:
        bitlens.set_num_threads(threads)
        torch.set_flush_denormal(flush)
        got = _rms_norm(x, weight)["out"]
        want = got if want is None else want
        assert torch.equal(got.view(torch.int32), want.view(torch.int32))
    assert want is not None
    tiny = torch.finfo(torch.float32).tiny
    torch.set_flush_denormal(False)
    assert ((want != 0) & (want.abs() < tiny)).any(), "the inputs must exercise subnormals"
