"""The prepared command for a GPU: its record, and the carrier of the tests' tensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from bitlens.model.ops.cuda.kernels import CudaKernels
from support import gpu_check, gpu_ratios
from support.cuda_host import Carried, host_library

GPU = {"name": "a GPU", "driver": "580.1", "architecture": "90"}
PASSES, FAILS = ([sys.executable, "-c", f"raise SystemExit({code})"] for code in (0, 1))


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gpu_check.json"
    monkeypatch.setattr(gpu_check, "RECORD", path)
    return path


def outcomes(record: Path) -> list[str]:
    return [stage["outcome"] for stage in json.loads(record.read_text())["stages"]]


def test_a_failure_ends_it_and_is_recorded(record: Path) -> None:
    assert not gpu_check.run(GPU, [("a", PASSES), ("b", FAILS), ("c", PASSES)])
    assert outcomes(record) == ["passed", "failed", "not run"]
    assert json.loads(record.read_text())["device"] == "a GPU"


def test_a_sanitizer_that_is_not_there_is_not_run(record: Path) -> None:
    assert gpu_check.run(GPU, [("a", PASSES), ("compute-sanitizer", [])])
    assert outcomes(record) == ["passed", "not run"]


def test_without_a_gpu_nothing_runs(record: Path) -> None:
    assert not gpu_check.run(None, gpu_check.stages("90"))
    assert set(outcomes(record)) == {"not run"}


def test_every_ratio_is_measured() -> None:
    """On the executor, of small shapes: what a GPU will run does run."""
    sizes = gpu_ratios.Sizes(
        rows=4, width=64, matrix=16, vocabulary=300, batch=2, d_model=32, d_mlp=32, n_heads=2,
        flushed=64, repeats=1,
    )  # fmt: skip
    before = host_library().launches()
    found = gpu_ratios.measured(sizes)["ratios"]
    assert isinstance(found, dict)
    assert found.keys() == {"norm", "linear_fp32", "decode", "sampler"}
    assert all(x["ratio"] > 0 for x in found.values())
    after = host_library().launches()
    ran = {name for name in after if after[name] > before[name]}
    assert {"rms_norm", "linear_tiled", "attention_sum", "sample"} <= ran


def test_what_a_kernel_writes_in_place_comes_back() -> None:
    """Kernels see copies, as on a GPU, and their results must reach the tensors that tests hold."""
    kernels = Carried(CudaKernels(host_library()))
    x = torch.arange(8.0).view(1, 8)
    cos, sin = torch.zeros(1, 2), torch.ones(1, 2)
    k_pages, v_pages = torch.zeros(1, 1, 2, 64), torch.zeros(1, 1, 64, 2)
    table, starts, past = (
        torch.zeros(1, 1, dtype=torch.int32),
        torch.tensor([0, 1]),
        torch.tensor([0]),
    )
    kernels.rope_kv_write(x, cos[:, :1], sin[:, :1], k_pages, v_pages, table, starts, past)
    assert x[0, :4].tolist() == [-1.0, 0.0, -3.0, 2.0]
    assert k_pages[0, 0, :, 0].tolist() == [-5.0, 4.0]
    assert v_pages[0, 0, 0].tolist() == [6.0, 7.0]
