"""bf16 through vdpbf16ps and tiles (docs/decisions/bf16-instructions.md): the bits of FMAs, always.

Shape suffixes: m rows, k depth, n outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from bitlens import _core
from bitlens.model.ops import kernels
from bitlens.model.ops.packed import PackedWeight, pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix
from hypothesis import example, given, settings
from hypothesis import strategies as st

FUSED = "avx512_bf16"
needs_instruction = pytest.mark.skipif(
    FUSED not in _core.available_isas(), reason="this CPU has no AVX512-BF16 instructions"
)
HEADER_BYTES = 64  # of a panel: its least exponent, int32
NO_EXPONENT, NEVER_FUSED, LEAST_SUM = 255, -1000, 142


@pytest.fixture(autouse=True)
def restored_isa() -> Iterator[None]:
    before = _core.isa_setting()
    yield
    _core.set_isa(before)


def from_bits(bits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(bits.astype(np.uint16).view(np.int16)).view(torch.bfloat16)


def packed(w_nk: torch.Tensor) -> PackedWeight:
    return pack(StoredMatrix(Format.BF16, *w_nk.shape, w_nk.contiguous()))


def linear(x_mk: torch.Tensor, w: PackedWeight, isa: str) -> torch.Tensor:
    """The bits of y [m, n], every NaN the same one."""
    _core.set_isa(isa)
    y_mn = kernels.linear(x_mk, w.data, w.format, w.n, None, x_mk.dtype)
    return torch.where(y_mn.isnan(), torch.zeros_like(y_mn), y_mn).view(torch.int16)


def random_bits(
    generator: np.random.Generator, shape: tuple[int, int], low: int, high: int, zeros: float
) -> np.ndarray:
    """bf16 patterns with biased exponents low..high, some of them zeros of either sign."""
    exponent = generator.integers(low, high + 1, shape)
    sign, mantissa = generator.integers(0, 2, shape), generator.integers(0, 128, shape)
    zero = generator.random(shape) < zeros
    return sign << 15 | np.where(zero, 0, exponent << 7 | mantissa)


@st.composite
def exponents(draw: st.DrawFn) -> tuple[int, int]:
    """A window: anything from subnormals to NaN, or narrow enough for sums to cancel."""
    low = draw(st.integers(0, 255))
    return low, min(255, low + draw(st.sampled_from([0, 1, 6, 255])))


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(
        st.sampled_from([1, 2, 5, 12, 23, 40]),
        st.sampled_from([1, 2, 3, 31, 64, 255, 256, 257, 601]),
        st.sampled_from([1, 17, 70]),
    ),
    x_window=exponents(),
    w_window=exponents(),
    zeros=st.sampled_from([0.0, 0.3, 1.0]),
)
# Sums of the smallest magnitudes on either side of what the instruction may be given.
@example(seed=1, shape=(5, 64, 70), x_window=(71, 71), w_window=(71, 71), zeros=0.0)
@example(seed=2, shape=(40, 601, 70), x_window=(70, 70), w_window=(71, 71), zeros=0.3)
@example(seed=3, shape=(40, 601, 70), x_window=(1, 4), w_window=(1, 4), zeros=0.3)
@example(seed=4, shape=(5, 3, 17), x_window=(250, 254), w_window=(120, 130), zeros=0.0)
@example(seed=5, shape=(40, 3, 17), x_window=(255, 255), w_window=(120, 130), zeros=0.3)
def test_every_instruction_set_gives_the_same_bits(
    seed: int,
    shape: tuple[int, int, int],
    x_window: tuple[int, int],
    w_window: tuple[int, int],
    zeros: float,
) -> None:
    m, k, n = shape
    generator = np.random.default_rng(seed)
    x_mk = from_bits(random_bits(generator, (m, k), *x_window, zeros))
    w = packed(from_bits(random_bits(generator, (n, k), *w_window, zeros)))
    expected = linear(x_mk, w, "generic")
    for isa in _core.available_isas():
        assert torch.equal(linear(x_mk, w, isa), expected), isa


def header(w: PackedWeight) -> int:
    return int(w.data[:4].view(torch.int32))


@pytest.mark.parametrize(
    ("bits", "least"),
    [
        (0x0000, NO_EXPONENT),
        (0x8000, NO_EXPONENT),
        (0x0001, NEVER_FUSED),
        (0x807F, NEVER_FUSED),
        (0x0080, 1),
        (0xBF80, 127),
        (0x7F7F, 254),
        (0x7F80, NEVER_FUSED),
        (0x7FC1, NEVER_FUSED),
    ],
)
def test_a_panel_knows_its_least_exponent(bits: int, least: int) -> None:
    w_nk = torch.zeros(40, 33, dtype=torch.bfloat16)
    w_nk[3, 32] = from_bits(np.array([bits]))[0]
    assert header(packed(w_nk)) == least


def subnormal_sums(k: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """x and w whose products are normal but cancel to subnormal sums, later scaled up again."""
    x_mk, w_nk = torch.zeros(1, k), torch.zeros(32, k)
    x_mk[0, :5:2] = torch.tensor([2.0**-60, 2.0**-60, 1.0])  # one chain: even k
    w_nk[:, :5:2] = torch.tensor([(1 + 2**-7) * 2.0**-64, -(2.0**-64), 0.0])
    return x_mk.bfloat16(), w_nk.bfloat16()


@needs_instruction
@pytest.mark.parametrize("rows", [1, 40])
def test_the_header_keeps_subnormal_sums_from_the_instruction(rows: int) -> None:
    """Negative control: under a header that allows it, the instruction flushes the sum to zero."""
    x_mk, w_nk = subnormal_sums()
    w, x_mk = packed(w_nk), x_mk.repeat(rows, 1)
    assert header(w) + 127 - 60 < LEAST_SUM
    expected = linear(x_mk, w, "avx512")
    assert expected.any()
    assert torch.equal(linear(x_mk, w, FUSED), expected)
    w.data[:4].view(torch.int32).fill_(NO_EXPONENT)
    assert torch.equal(linear(x_mk, w, "avx512"), expected)
    assert not linear(x_mk, w, FUSED).any()


@needs_instruction
@pytest.mark.parametrize("rows", [1, 40])
def test_ordinary_numbers_go_through_the_instruction(rows: int) -> None:
    """Shown by weights that it takes for zero, behind a header that says they are not there."""
    generator = torch.Generator().manual_seed(0)
    x_mk = torch.randn(rows, 600, generator=generator).bfloat16()
    w_nk = torch.randn(64, 600, generator=generator).bfloat16()
    w_nk[0] = from_bits(np.full(600, 0x0001))
    w = packed(w_nk)
    chain = linear(x_mk, w, FUSED)
    assert chain[:, 0].any()
    least = header(packed(w_nk[1:]))
    assert least >= LEAST_SUM - 127
    w.data[:4].view(torch.int32).fill_(least)
    fused = linear(x_mk, w, FUSED)
    assert not fused[:, 0].any()
    assert torch.equal(fused[:, 1:], chain[:, 1:])


@pytest.mark.nightly
@pytest.mark.parametrize("low", [1, 60, 66, 70, 120])
def test_many_adversarial_sums(low: int) -> None:
    """10^8 sums in all: exponents from subnormal sums to ordinary ones, half of them undone."""
    generator = np.random.default_rng(low)
    m, n, k = 512, 512, 96
    sets = _core.available_isas()
    for round_ in range(80):
        bits = [random_bits(generator, (rows, k), low, low + 6, 0.1) for rows in (m, n)]
        for part in bits:
            part[:, k // 2 :] = part[:, : k // 2] ^ (0x8000 * (part is bits[0]))
            part[:, k // 2 :] ^= generator.integers(0, 20, (len(part), k // 2)) == 0
        x_mk, w = from_bits(bits[0]), packed(from_bits(bits[1]))
        expected = linear(x_mk, w, sets[1 if round_ % 20 and len(sets) > 1 else 0])
        for isa in sets[1:]:
            assert torch.equal(linear(x_mk, w, isa), expected), (isa, round_)


@pytest.mark.skipif("amx" not in _core.available_isas(), reason="this CPU has no AMX")
def test_tiles_take_turns_with_those_of_onednn() -> None:
    """Each configures the tile unit for itself, in one thread."""
    torch.set_num_threads(1)
    _core.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x_mk = torch.randn(64, 256, generator=generator).bfloat16()
    w_nk = torch.randn(96, 256, generator=generator).bfloat16()
    w, ours, theirs = packed(w_nk), None, None
    for _ in range(20):
        y, peer = linear(x_mk, w, "amx"), x_mk @ w_nk.T
        assert ours is None or torch.equal(y, ours)
        assert theirs is None or torch.equal(peer, theirs)
        ours, theirs = y, peer
    assert ours is not None
    assert torch.equal(ours, linear(x_mk, w, "generic"))
