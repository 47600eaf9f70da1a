"""What the audit measures with: texts, sampled rows, histograms of ULP errors, scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.audit.judging import Tally, UlpErrors
from bitlens.audit.paths import reference_path
from bitlens.audit.row_sample import ROW_AXES, sample_rows
from bitlens.audit.script import literal, script
from bitlens.audit.texts import texts
from bitlens.precision import FAULTS, PrecisionContract, emulate
from hypothesis import given
from hypothesis import strategies as st
from support.small_inputs import inputs_of, run
from support.speaking_llama import write_speaking_llama


def test_texts_have_one_length_and_follow_the_seed(tmp_path: Path) -> None:
    _, model = reference_path(str(write_speaking_llama(tmp_path)), "fp32")
    prompts = ["ab", "a longer prompt than the rest", "c"]
    first = texts(model, prompts, 12, seed=3)
    again = texts(model, prompts, 12, seed=3)
    other = texts(model, prompts, 12, seed=4)
    assert first.tokens_NP.shape == (3, 12)
    assert first.written == 10 + 0 + 11
    assert torch.equal(first.tokens_NP, again.tokens_NP)
    assert not torch.equal(first.tokens_NP, other.tokens_NP)
    for row, prompt in zip(first.tokens_NP, prompts, strict=True):
        assert model.to_string(row).startswith(prompt[:12])


@pytest.mark.parametrize("op", ROW_AXES)
@pytest.mark.parametrize("rows", [1, 2, 99])
def test_sampled_rows_are_rows(op: str, rows: int) -> None:
    """The cut inputs give the cut output: in fp32 the emulation sums each row alike."""
    inputs = inputs_of(op)
    y = run(op, inputs)
    cut, picked = sample_rows(op, inputs, y, rows, torch.Generator().manual_seed(1))
    torch.testing.assert_close(run(op, cut), picked)
    axis = ROW_AXES[op][1]
    assert picked.shape[axis] == min(rows, y.shape[axis])


def _tally(fault: str | None) -> Tally:
    g = torch.Generator().manual_seed(0)
    contract = PrecisionContract("matmul", storage="bf16")
    inputs: dict[str, Any] = {
        "a": torch.randn(64, 32, generator=g).bfloat16(),
        "b": torch.randn(32, 40, generator=g).bfloat16(),
    }
    tally = Tally("here", contract)
    bent = FAULTS[fault] if fault else None
    for half in (slice(0, 32), slice(32, 64)):
        part = {**inputs, "a": inputs["a"][half]}
        tally.add(part, emulate(part, contract, bent))
    return tally


def test_verdicts_add_up_and_bias_shows_truncation() -> None:
    right, truncating = _tally(None), _tally("truncating_cast")
    assert (right.values, right.outside, right.reason) == (64 * 40, 0, "")
    assert truncating.outside > 0.2 * truncating.values
    assert "permitted" in truncating.reason
    assert abs(right.errors.bias or 0.0) < 0.05
    assert truncating.errors.bias == pytest.approx(-0.5, abs=0.05)
    assert (truncating.errors.z or 0.0) < -50
    worst = truncating.worst
    assert worst is not None
    assert worst.violates
    assert worst.utilisation == truncating.utilisation > 1


def test_a_fault_in_a_late_block_of_columns_has_its_own_index() -> None:
    """Its inputs are the block's, so the index that goes with them is the block's too."""
    column = 19_999
    contract = PrecisionContract("matmul")
    inputs = {"a": torch.ones(2, 1), "b": torch.ones(1, 20_000)}
    y = torch.ones(2, 20_000)
    y[1, column] = 3.0
    tally = Tally("unembed", contract)
    tally.add(inputs, y)
    worst = tally.worst
    assert worst is not None
    assert (tally.outside, tally.where) == (1, (1, column))
    assert f"matmul[1, {column}] = 3.0" in tally.reason
    assert worst.where == (1, column - 2 * 8192)
    assert worst.actual[worst.where] == 3.0


@given(st.lists(st.floats(-200, 200), min_size=1, max_size=50))
def test_no_error_is_lost_from_the_histogram(errors: list[float]) -> None:
    found = UlpErrors()
    found.count(torch.tensor(errors, dtype=torch.float64))
    shown = found.histogram("kind", "bf16")
    assert shown.values == len(errors)
    assert shown.below == sum(error < -shown.limit for error in errors)
    assert shown.above == sum(error >= shown.limit for error in errors)
    doubled = UlpErrors()
    doubled.merge(found)
    doubled.merge(found)
    assert doubled.histogram("kind", "bf16").values == 2 * len(errors)


@given(st.lists(st.floats(width=16), min_size=1, max_size=40), st.sampled_from([16, 32]))
def test_literals_are_the_tensor(values: list[float], width: int) -> None:
    dtype = torch.bfloat16 if width == 16 else torch.float32
    tensor = torch.tensor(values, dtype=dtype)
    back = eval(literal(tensor), {"torch": torch})
    assert back.dtype == tensor.dtype
    assert torch.equal(back.nan_to_num(7.0), tensor.nan_to_num(7.0))


def test_a_hostile_title_stays_in_its_docstring() -> None:
    contract = PrecisionContract("silu", storage="bf16", function_ulp=1.5)
    x = torch.zeros(1, 1, dtype=torch.bfloat16)
    source = script('a """; import os\\N \n"', contract, {"x": x}, x, {}, None)
    names: dict[str, Any] = {}
    with pytest.raises(SystemExit) as leaving:
        exec(compile(source, "script", "exec"), names)
    assert leaving.value.code == 0
    assert "os" not in names
    assert names["contract"] == contract
