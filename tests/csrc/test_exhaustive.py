"""exp, log and tanh: at most 1 ULP, and the same bits on every instruction set.

A sample always; all 2^32 floats with `--nightly` (`make exhaustive`), where the checksums are those
that `csrc/spec_tests/exhaustive.cpp` prints for the scalar spec.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from bitlens import _core
from bitlens.precision import ulp_error
from golden.cases import checksum, words_of
from hypothesis import given
from hypothesis import strategies as st

Bits = npt.NDArray[np.uint32]

FLOATS = 2**32
CHUNK = 2**24
SAMPLE_STRIDE = 4099  # prime: visits every exponent and all low bits
SPEC_CHECKSUMS = {
    "exp": 0xA36BD383BE8D47BB,
    "log": 0xDF8B8FE857ED1DA3,
    "tanh": 0x5B49B3395E8BC17D,
}
FUNCTIONS = sorted(SPEC_CHECKSUMS)


def _floats(bits: Bits) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.float32))


def _apply(function: str, x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    getattr(_core, function)(x, x.numel(), y)
    return y


def _on_every_isa(function: str, x: torch.Tensor) -> Iterator[tuple[str, Bits]]:
    for isa in _core.available_isas():
        _core.set_isa(isa)
        yield isa, words_of(_apply(function, x))


def _assert_same_bits(function: str, x: torch.Tensor) -> Bits:
    (first_isa, first), *others = _on_every_isa(function, x)
    for isa, words in others:
        differing = int((words != first).sum())
        assert differing == 0, f"{function}: {isa} differs from {first_isa} at {differing} floats"
    return first


@pytest.mark.parametrize("function", FUNCTIONS)
def test_sample_is_within_one_ulp_and_the_same_on_every_isa(function: str) -> None:
    x = _floats(np.arange(0, FLOATS, SAMPLE_STRIDE, dtype=np.uint64).astype(np.uint32))
    words = _assert_same_bits(function, x)
    exact = getattr(torch, function)(x.double())
    assert ulp_error(_floats(words), exact).max().item() <= 1.0


@given(start=st.integers(0, FLOATS - 1), count=st.integers(1, 70))
def test_any_length_has_the_same_bits_on_every_isa(start: int, count: int) -> None:
    """No tail takes another path: each element alone has the bits it has in the row."""
    bits = ((np.arange(count, dtype=np.uint64) + np.uint64(start)) % FLOATS).astype(np.uint32)
    for function in FUNCTIONS:
        together = _assert_same_bits(function, _floats(bits))
        alone = [words_of(_apply(function, _floats(bits[i : i + 1])))[0] for i in range(count)]
        assert list(together) == alone


@pytest.mark.nightly
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_float_has_the_bits_of_the_spec_on_every_isa(function: str) -> None:
    total = 0
    for start in range(0, FLOATS, CHUNK):
        bits = np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32)
        total += checksum(_assert_same_bits(function, _floats(bits)), start)
    assert total % 2**64 == SPEC_CHECKSUMS[function]
