"""linear by AMX tiles, on a model of the tile unit under ASan and UBSan: the bits of the spec.

The instruction itself is what the model states (Intel's documentation; the kernels try it out at
start-up before they use it). Everything around it is the code that an AMX machine runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/csrc/tile_unit"
SOURCES = [MODEL / "products.cpp"] + [
    ROOT / "csrc/cpu" / name for name in ("amx/linear.cpp", "linear.cpp", "pack.cpp", "threads.cpp")
]
FLAGS = [
    "-std=c++20", "-O1", "-g1", "-mfma", "-ffp-contract=off", "-fno-math-errno", "-pthread",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror",
    "-Wno-unused-function", "-DBITLENS_MODEL_TILE_UNIT", "-DBITLENS_ISA_AMX",
]  # fmt: skip


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++") or shutil.which("c++")
    assert compiler, "these tests compile C++"
    program = tmp_path_factory.mktemp("tile_unit") / "products"
    includes = [f"-I{ROOT / 'csrc'}", f"-I{MODEL}"]
    subprocess.run([compiler, *FLAGS, *includes, *map(str, SOURCES), "-o", program], check=True)
    return program


def _run(products: Path, seed: int, rounds: int) -> tuple[int, ...]:
    done = subprocess.run(
        [products, str(seed), str(rounds)], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return tuple(map(int, re.findall(r"\d+", done.stdout)))


def test_tiles_have_the_bits_of_the_spec(products: Path) -> None:
    """Ragged shapes, threads, cancelling and tiny sums; the program checks its own controls."""
    compared, differing, moved_by_order, tile_products = _run(products, seed=1, rounds=2)
    assert differing == 0
    assert compared > 200_000
    assert moved_by_order > compared / 4
    assert tile_products > 10_000


@pytest.mark.nightly
def test_tiles_have_the_bits_of_the_spec_over_many_sums(products: Path) -> None:
    compared, differing, *_ = _run(products, seed=2, rounds=150)
    assert differing == 0
    assert compared > 15_000_000
