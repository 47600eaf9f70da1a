"""benchmarks/precision/compiled.py: what torch.compile rounds is promised, and nothing else is."""

from __future__ import annotations

import pytest

# torch.compile imports it in the midst of a run, and fails if by then another test's libraries have
# left parts of the standard distutils behind.
import setuptools  # noqa: F401
import torch
from bitlens.benchmarks.precision import honesty
from bitlens.benchmarks.precision.compiled import (
    FUSED,
    KEPT,
    compile_whole,
    compiled,
    promised,
)
from bitlens.benchmarks.precision.libraries import LIBRARIES
from bitlens.benchmarks.precision.rows import ROWS, rows
from bitlens.precision.oracle import check

EAGER = "Hugging Face bf16"
CELLS = [
    (library, op)
    for library, contracts in LIBRARIES.items()
    if not library.startswith("bitlens")
    for op in contracts
]


def test_fused_code_rounds_once_and_code_that_keeps_casts_as_eager_code_does() -> None:
    """Each keeps its own promise, and breaks the other's."""
    contract = LIBRARIES[EAGER]["rms_norm"]
    inputs = rows(contract, torch.Generator().manual_seed(0))
    outputs = {name: run(**inputs) for name, run in compiled(EAGER, "rms_norm").items()}
    assert set(outputs) == {FUSED, KEPT}
    for of, other in ((FUSED, KEPT), (KEPT, FUSED)):
        right = check(outputs[of], inputs, promised(of, contract))
        assert right.ok, right.reason
        assert check(outputs[of], inputs, promised(other, contract)).violations > ROWS


def test_compiled_code_is_compiled_at_every_size() -> None:
    def marked(x: torch.Tensor) -> torch.Tensor:
        return x + (1.0 if torch.compiler.is_compiling() else 0.0)

    run = compile_whole(marked)
    assert all(torch.equal(run(x=torch.zeros(n)), torch.ones(n)) for n in (1, 2, 3, 64))


def test_code_that_is_no_single_graph_is_refused() -> None:
    def by_value(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if float(x.sum()) > 0 else x

    with pytest.raises(Exception, match=r"[Dd]ata-dependent"):
        compile_whole(by_value)(x=torch.ones(2))


def test_kernels_of_ours_are_not_compiled() -> None:
    assert not compiled("bitlens bf16", "matmul")


@pytest.mark.nightly
@pytest.mark.parametrize(("library", "op"), CELLS)
def test_compiled_code_is_not_accused(library: str, op: str) -> None:
    contract = LIBRARIES[library][op]
    found = honesty.measure(
        library, contract, n_rows=8 * ROWS, seed=3, profile=None, with_compiled=True
    )
    assert FUSED in found.implementations
    assert not found.alarms
