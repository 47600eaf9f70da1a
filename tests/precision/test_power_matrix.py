"""benchmarks/precision: contracts catch every fault they can tell, and accuse no honest code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens import _core
from bitlens.benchmarks.precision import honesty, page, power, rms_norm
from bitlens.benchmarks.precision.__main__ import run
from bitlens.benchmarks.precision.conventions import CONVENTIONS, Example
from bitlens.benchmarks.precision.draws import examples
from bitlens.benchmarks.precision.implementations import declared, implementations
from bitlens.benchmarks.precision.libraries import LIBRARIES
from bitlens.benchmarks.precision.rows import ROWS, rows
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.emulation import emulate
from bitlens.precision.faults import FAULTS
from bitlens.precision.operations import OPERATIONS
from bitlens.precision.oracle import judge

CELLS = [(library, op) for library, contracts in LIBRARIES.items() for op in contracts]
EACH = pytest.mark.parametrize(("library", "op"), CELLS)
BY_DAY = {"plain fp16": ("adam_step",), "codes int8": ("quantize",)}
"""Operations that bitlens has no kernel for are searched for faults by night, but for these."""
SEARCHED = [
    pytest.param(library, op, marks=() if by_day else pytest.mark.nightly)
    for library, op in CELLS
    for by_day in [OPERATIONS[op].native is not None or op in BY_DAY.get(library, ())]
]
THREADS = torch.get_num_threads()


@pytest.mark.parametrize(("library", "op"), SEARCHED)
def test_every_fault_that_the_contract_can_tell_is_caught(library: str, op: str) -> None:
    """Within the CI profile; the others come with an argument."""
    contract = LIBRARIES[library][op]
    cells = list(power.cells(library, contract, examples=[]))
    assert {cell.fault for cell in cells} == {
        name for name, fault in FAULTS.items() if fault.applies_to(contract)
    }
    assert not [cell.fault for cell in cells if cell.escaped]


@EACH
def test_honest_code_is_not_accused(library: str, op: str) -> None:
    found = honesty.measure(library, LIBRARIES[library][op], n_rows=ROWS, seed=0, profile=None)
    assert not found.alarms
    assert found.judgements == found.rows * len(found.implementations) >= ROWS


@pytest.mark.threads
@pytest.mark.parametrize("op", ["matmul", "softmax"])
def test_honest_code_on_several_threads_is_not_accused(op: str) -> None:
    """Rows enough for torch to share them out."""
    library, contract = "Hugging Face fp32", LIBRARIES["Hugging Face fp32"][op]
    assert torch.get_num_threads() == THREADS
    assert not honesty.measure(library, contract, n_rows=ROWS, seed=1, profile=None).alarms


@pytest.mark.parametrize("n", [512, pytest.param(4096, marks=pytest.mark.nightly)])
def test_the_four_rms_norm_faults_pass_every_tolerance_and_no_contract(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rms_norm, "LENGTHS", (n,))
    found = rms_norm.measure()
    assert [measured.what for measured in found] == [
        *("correct", "extra cast", "bf16 reciprocal root", "bf16 sum, as a tree"),
        "truncating output",
    ]
    for measured in found:
        assert all(measured.passes.values()), measured
        if measured.what == "correct":
            assert measured.flagged == 0
            assert measured.max_ulp < 0.51
        else:
            assert measured.flagged > 0.1, measured
            assert measured.max_ulp < 1.6
        truncates = measured.what == "truncating output"
        assert measured.bias_ulp == pytest.approx(-0.5 if truncates else 0.0, abs=0.05)


def _measured(op: str = "rms_norm") -> tuple[power.Cell, ...]:
    contract = LIBRARIES["bitlens bf16"][op]
    drawn = [Example.of(contract, inputs) for inputs in examples(contract, 30, seed=0)]
    return tuple(power.cells("bitlens bf16", contract, drawn))


def test_the_matrix_repeats_by_seed() -> None:
    first = _measured("silu")
    assert first == _measured("silu")
    truncating = next(cell for cell in first if cell.fault == "truncating_cast")
    assert 0 < truncating.caught <= truncating.examples
    assert 0 < truncating.wrong < truncating.elements
    assert truncating.conventions is not None
    assert truncating.conventions["Liger"] is None  # it does not test silu


def test_tolerances_see_gross_errors() -> None:
    """The control: a convention that never fails would prove nothing."""
    contract = LIBRARIES["bitlens bf16"]["rms_norm"]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 512, generator=generator).bfloat16()
    weight = torch.ones(512, dtype=torch.bfloat16)
    example = Example.of(contract, {"x": x, "weight": weight, "eps": 1e-6})
    assert all(passes(example, example.honest) for passes in CONVENTIONS.values())
    assert not any(passes(example, example.honest * 1.5) for passes in CONVENTIONS.values())


@pytest.mark.parametrize("library", [name for name, ops in LIBRARIES.items() if "swiglu" in ops])
def test_rows_are_judged_one_by_one(library: str) -> None:
    """Every row can be accused, and one that is wrong accuses no other."""
    contract = LIBRARIES[library]["swiglu"]
    inputs = rows(contract, torch.Generator().manual_seed(0))
    example = Example.of(contract, inputs)
    wrong = example.honest.clone()
    wrong[3] = torch.nan
    assert judge(wrong, example.allowed, contract).violations == int(example.claimed[3].sum()) > 0
    fault = FAULTS["flush_to_zero"]
    if fault.why_indistinguishable(contract) is None:
        flushed = emulate(inputs, contract, fault)
        assert not judge(flushed, example.allowed, contract).ok


def test_faulty_code_among_the_honest_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = PrecisionContract("silu", storage="bf16")

    def truncating(**inputs: Any) -> torch.Tensor:
        return emulate(inputs, contract, FAULTS["truncating_cast"])

    monkeypatch.setattr(honesty, "implementations", lambda *_: {"truncating": truncating})
    found = honesty.measure("plain bf16", contract, n_rows=1, seed=0, profile=None)
    assert found.alarms
    assert found.utilisation > 1


def test_what_fused_attention_promises_less() -> None:
    """torch's flushes subnormal exponentials: it is held to that, and to no less."""
    eager = LIBRARIES["Hugging Face fp32"]["attention"]
    fused = declared("torch sdpa", eager)
    assert fused == dataclasses.replace(eager, may_flush=True)
    assert declared("eager", eager) == eager


def test_our_kernels_are_judged_on_every_instruction_set() -> None:
    assert list(implementations("bitlens bf16", "attention")) == [
        f"bitlens {isa}" for isa in _core.available_isas()
    ]
    names = implementations("Hugging Face fp32", "matmul")
    assert {"numpy gemm", "torch gemm"} <= set(names)


def test_the_page_says_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rms_norm, "LENGTHS", (16,))
    monkeypatch.setitem(LIBRARIES, "small", {"silu": LIBRARIES["bitlens bf16"]["silu"]})
    results = run(["small"], n_examples=20, n_rows=1, seed=0, search=False, command="made up")
    assert not results.failures
    text = page.markdown(results)
    assert "made up" in text
    assert text.count("\n## ") == len(list(page.sheets(results))) == len(list(page.tables(results)))
    assert "| silu | truncating_cast |" in text
    assert json.loads(json.dumps(results.to_json()))["cells"]
    lost = dataclasses.replace(results.cells[0], argument=None, caught=0, searched=False)
    escaped = dataclasses.replace(results, cells=[lost])
    assert escaped.failures
    assert "ESCAPED" in page.markdown(escaped)


def test_operations_measured_anew_replace_those_of_an_earlier_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rms_norm, "LENGTHS", (16,))
    both = {op: LIBRARIES["plain fp16"][op] for op in ("silu", "tanh")}
    monkeypatch.setattr(page, "LIBRARIES", {"small": both})
    monkeypatch.setitem(LIBRARIES, "small", both)
    options = {"n_examples": 1, "n_rows": 1, "seed": 0, "search": False}
    before = json.loads(json.dumps(run(["small"], command="first", **options).to_json()))
    after = run(["small"], ["silu"], command="second", **options)
    assert {cell.op for cell in after.cells} == {"silu"}
    found = page.merged(page.earlier(before, ["silu"]), after)
    assert [h.op for h in found.honesty] == ["silu", "tanh"]
    assert found.honesty[0] is after.honesty[0]
    assert [dataclasses.asdict(c) for c in found.cells if c.op == "tanh"] == [
        cell for cell in before["cells"] if cell["op"] == "tanh"
    ]
    assert "first\n    second" in page.markdown(found)


def test_the_kept_page_shows_no_escape_and_no_alarm() -> None:
    kept = Path(page.__file__).parents[2] / "docs" / "precision_power.md"
    text = kept.read_text()
    assert "ESCAPED" not in text
    for library, contracts in LIBRARIES.items():
        assert f"## Contracts of {library}" in text
        for op in contracts:
            assert f"| {library} | {op} |" in text
    assert text.rstrip().endswith("|")


MILLION = 1_000_000
KERNELS = [cell for cell in CELLS if OPERATIONS[cell[1]].native is not None]
OTHERS = [cell for cell in CELLS if cell not in KERNELS]


@pytest.mark.nightly
@pytest.mark.parametrize("cells", [KERNELS, OTHERS], ids=["with kernels", "without kernels"])
def test_no_false_alarm_in_a_million_examples(cells: list[tuple[str, str]]) -> None:
    """An example is one row: what one reduction or one vector of results depends on.

    Each is drawn by itself and judged by its own permitted intervals, once for every honest
    implementation, compiled ones among them. Calls of 256 rows share weights, keys or values.
    """
    share = -(-MILLION // len(cells))
    seed = int(torch.seed() % 2**31)
    total = 0
    for i, (library, op) in enumerate(cells):
        contract = LIBRARIES[library][op]
        found = honesty.measure(library, contract, n_rows=share, seed=seed + i, with_compiled=True)
        assert not found.alarms, f"{library} {op}, seed {seed + i}: {found.alarms[:3]}"
        assert found.utilisation <= 1
        total += found.rows
    assert total >= MILLION
