"""The set that multiplies bf16 is the fastest, remembered between processes, and moves no bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bitlens import _core
from bitlens.model.ops import bf16_products, kernels
from bitlens.model.ops.packed import pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix

needs_a_choice = pytest.mark.skipif(
    not {"avx512_bf16", "amx"} & set(_core.available_isas()),
    reason="one set alone multiplies bf16 on this CPU",
)
SETTLE = """
import json
from bitlens import _core
from bitlens.model.ops.bf16_products import bf16_products_in_words, settle_bf16_products
settle_bf16_products()
few, many, timed = _core.bf16_products()
print(json.dumps([few, many, len(timed), bf16_products_in_words()]))
"""


def settled(cache: Path) -> tuple[str, str, int, str]:
    """Returns the choice of another process: few rows, many rows, sets timed, its words."""
    surroundings = {k: v for k, v in os.environ.items() if k != "BITLENS_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", SETTLE],
        env={**surroundings, "BITLENS_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    few, many, timed, words = json.loads(done.stdout)
    return few, many, timed, words


@needs_a_choice
def test_a_choice_is_remembered(tmp_path: Path) -> None:
    few, many, timed, words = settled(tmp_path)
    assert timed >= 2
    assert {few, many} <= set(_core.available_isas())
    assert words.startswith(f"{few} for few rows, {many} for many: ")
    assert "GFLOP/s" in words
    (file,) = tmp_path.iterdir()
    ((machine, choice),) = json.loads(file.read_text()).items()
    assert choice == {"few": few, "many": many}
    other = "avx512" if few != "avx512" else "avx512_bf16"
    if other in _core.available_isas():
        file.write_text(json.dumps({machine: {"few": other, "many": other}}))
        assert settled(tmp_path)[:3] == (other, other, 0)


@pytest.mark.parametrize(
    "text",
    ["", "[" * 10_000, "[1]", '{"cpu": 3}', '{"cpu": {"few": 1, "many": "avx2"}}', " " * 100_000],
    ids=["empty", "deep", "list", "number", "no name", "large"],
)
def test_a_cache_of_something_else_is_passed_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bf16-products.json"
    file.write_text(text)
    assert bf16_products._read(file) == {}
    file.write_text('{"cpu": {"few": "avx2", "many": "avx2", "more": 1}}')
    assert bf16_products._read(file) == {"cpu": {"few": "avx2", "many": "avx2"}}


@needs_a_choice
def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert settled(tmp_path / "file")[2] >= 2


def test_a_forced_set_is_named() -> None:
    _core.set_isa("generic")
    assert bf16_products.bf16_products_in_words() == "generic, as asked for"


def test_an_unknown_set_is_not_chosen() -> None:
    assert not _core.choose_bf16_products("tpu", "tpu")
    with pytest.raises(ValueError, match="choose one of: auto, generic"):
        _core.set_isa("tpu")


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_the_choice_moves_no_bit(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 300, generator=generator).bfloat16()
    w = torch.randn(70, 300, generator=generator).bfloat16()
    packed = pack(StoredMatrix(Format.BF16, 70, 300, w))

    def bits() -> torch.Tensor:
        y = kernels.linear(x, packed.data, packed.format, 70, None, torch.float32)
        return y.view(torch.int32)

    _core.set_isa("auto")
    assert _core.isa_setting() == "auto"
    chosen = bits()
    for isa in _core.available_isas():
        _core.set_isa(isa)
        assert _core.isa_setting() == isa
        assert torch.equal(bits(), chosen), isa


def test_many_rows_of_no_depth_are_zeros() -> None:
    packed = pack(StoredMatrix(Format.BF16, 40, 0, torch.empty(40, 0, dtype=torch.bfloat16)))
    x = torch.empty(30, 0, dtype=torch.bfloat16)
    y = kernels.linear(x, packed.data, packed.format, 40, None, torch.float32)
    assert y.shape == (30, 40)
    assert not y.any()
