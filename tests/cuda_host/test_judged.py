"""`bitlens verify` and `bitlens audit` of a model on a GPU: their tables are the CPU's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.audit import Plan, run_audit
from bitlens.audit.invariance import surroundings, variations, verify
from bitlens.audit.invariance.variations import Scope
from bitlens.model.load import load
from bitlens.model.ops.cuda import library
from bitlens.model.ops.policy import NATIVE_POLICIES
from bitlens.model.ops.sites import judged_on_cpu
from bitlens.precision.addresses import Site
from bitlens.precision.inject import inject_fault
from support.command_line import command_runner
from support.cuda_host import host_library, stand_in_for_cuda
from support.speaking_llama import write_speaking_llama

PROMPTS = ["Once upon", "def f(x):"]
PLAN = Plan(tokens=12, checked=1, rows=3)
SMALL = Scope(
    n_tokens=4,
    chunk_lengths=(2, 3),
    n_long=12,
    n_random_cuts=1,
    generic_tokens=4,
    every_layer=False,
)
IN_THE_OTHER_PROCESS = """import pytest
from support.cuda_host import stand_in_for_cuda

stand_in_for_cuda(pytest.MonkeyPatch())
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, in a file."""
    return write_speaking_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def executor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stands in for a GPU, in processes that are started, too."""
    stand_in_for_cuda(monkeypatch)
    (tmp_path / "sitecustomize.py").write_text(IN_THE_OTHER_PROCESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(verify, "QUICK", SMALL)
    monkeypatch.setattr(variations, "BATCH_SIZES", (1, 2, 5))


def both_tables(
    llama: Path, dtype: str
) -> tuple[dict[str, verify.VerifyRow], dict[str, verify.VerifyRow]]:
    """Rows by what they vary, of the GPU and of the CPU, whose numbers are the same."""
    ours = verify.verify(llama, dtype=dtype, quick=True, device="cuda")
    theirs = verify.verify(llama, dtype=dtype, quick=True)
    assert (ours.device, theirs.device) == ("cuda", "cpu")
    assert not [row for row in ours.rows if not row.ok]
    assert any("other GPUs" in text for text in ours.not_covered)
    here, there = ({row.varied: row for row in x.rows} for x in (ours, theirs))
    for name in here.keys() & there.keys():
        assert here[name].values == there[name].values
        assert here[name].different == there[name].different
    return here, there


def test_promises_hold_as_on_the_cpu(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows of the table; all of them at night."""
    every = verify._properties
    some = ("decode one by one", "device", "hooks that read", "control: leaf of 16")
    monkeypatch.setattr(verify, "_properties", lambda *x: [p for p in every(*x) if p.name in some])
    here, there = both_tables(llama, "fp32")
    assert set(here) == set(some)
    assert set(there) == set(some) - {"device"}
    assert here["device"].evidence.endswith("kernels")


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", NATIVE_POLICIES)
def test_every_promise_holds_as_on_the_cpu(llama: Path, dtype: str) -> None:
    here, there = both_tables(llama, dtype)
    assert set(here) - set(there) == {"device"}
    assert set(there) - set(here) == {"threads", "instruction set", "after fork"}


def test_a_kernel_with_other_bits_is_found(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved alike in every pass, so that only the CPU shows it."""
    kernels = type(load(llama, device="cuda").ops.kernels)
    norm = kernels.rms_norm

    def moved(self: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        y = norm(self, *arguments, **options)
        return torch.nextafter(y, torch.full_like(y, torch.inf))

    monkeypatch.setattr(kernels, "rms_norm", moved)
    item = next(p for p in verify._properties(SMALL, "fp32", "cuda") if p.name == "device")
    model = load(llama, device="cuda")
    row = verify._run(item, verify.Subject(model, str(llama), "fp32", SMALL, "cuda"))
    assert not row.ok
    assert row.error is None
    assert row.different > 0


def test_a_device_on_which_nothing_is_launched_is_no_evidence(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = verify.Subject(load(llama, device="cuda"), str(llama), "fp32", SMALL, "cuda")
    monkeypatch.setattr(type(host_library()), "launches", lambda self: {"add": 7})
    with pytest.raises(RuntimeError, match="no kernel was launched on cuda"):
        surroundings.on_cpu(subject, verify.Tally())


@pytest.mark.parametrize("dtype", ["bf16", pytest.param("hf_bf16", marks=pytest.mark.nightly)])
def test_an_audit_has_the_cpus_findings(llama: Path, dtype: str) -> None:
    ours = run_audit(str(llama), "fp32", dtype, PROMPTS, PLAN, device="cuda")
    theirs = run_audit(str(llama), "fp32", dtype, PROMPTS, PLAN)
    assert ours.ok
    assert ours.setting.b == f"{dtype} on cuda"
    for name in ("ops", "flips", "divergence", "histograms", "meaning"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert any(op.created_error > 0 for op in ours.ops)


def test_one_policy_on_both_devices(llama: Path) -> None:
    """No value differs, and every operation is judged by its bits."""
    result = run_audit(str(llama), "bf16", "bf16", PROMPTS, PLAN, device="cuda")
    assert result.ok
    assert result.flips.flips == 0
    assert all(op.free_error == op.created_error == 0 for op in result.ops)
    assert result.divergence.judge == "bits"


def test_a_fault_on_the_device_is_found(llama: Path) -> None:
    model = load(llama, dtype="bf16", device="cuda")
    with inject_fault(model, "truncating_cast", at="blocks.1.mlp.down"):
        result = run_audit(str(llama), "fp32", model, PROMPTS, PLAN)
    assert [op.address for op in result.violated] == ["blocks.1.mlp.down"]


@pytest.mark.parametrize("b", ["hf", "jax", "onnx", torch.nn.Linear(2, 2)])
def test_what_bitlens_does_not_load_runs_on_no_device_of_its(llama: Path, b: Any) -> None:
    with pytest.raises(ValueError, match="--device cuda: only what bitlens loads for B runs there"):
        run_audit(str(llama), "fp32", b, PROMPTS, PLAN, device="cuda")


def test_commands(
    llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, report = command_runner(capsys, monkeypatch), tmp_path / "report.html"
    few = ("--n-prompts", "2", "--tokens", "8", "--checked", "1", "--rows", "2")
    code, out, err = run(
        *("audit", llama, "--b", "bf16", "--device", "cuda", "--output", report, *few)
    )
    assert code == 0, err
    assert "bf16 on cuda" in out
    seen: list[str] = []
    report_of = verify.verify

    def short(*arguments: Any, device: str, **options: Any) -> verify.VerifyReport:
        seen.append(device)
        monkeypatch.setattr(verify, "_properties", lambda *_: [])
        return report_of(*arguments, device=device, **options)

    monkeypatch.setattr(verify, "verify", short)
    code, out, err = run("verify", llama, "--quick", "--device", "cuda", "--json")
    assert code == 0, err
    assert (seen, json.loads(out)["device"]) == (["cuda"], "cuda")


@pytest.mark.parametrize("command", ["verify", "audit"])
def test_commands_without_a_build(
    command: str,
    llama: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(library, "LIBRARY", Path("/nowhere/libbitlens_cuda.so"))
    code, _, err = command_runner(capsys, monkeypatch)(command, llama, "--device", "cuda")
    assert code == 2
    assert "no CUDA build" in err


def test_contracts_are_given_what_is_on_the_cpu() -> None:
    """A site of another device: arguments come here before they are bound, and results go back."""
    seen: list[torch.device] = []
    there = torch.device("meta")

    def bind(x: torch.Tensor, weight: object, *, scale: torch.Tensor) -> dict[str, Any]:
        seen.extend((x.device, scale.device))
        return {"a": x, "b": weight}

    def restored(y: torch.Tensor, like: Any) -> torch.Tensor:
        seen.append(y.device)
        return y

    here: Any = None
    site = Site("a", here, "of a GPU", bind, lambda x, *_, **__: (x,), lambda y: y, restored)
    moved, x, weight = judged_on_cpu(site, there), torch.ones(2), object()
    assert moved.bind(x, weight, scale=x) == {"a": x, "b": weight}
    assert moved.operands is not None
    (operand,) = moved.operands(x, weight)
    assert moved.view(x).device == operand.device == torch.device("cpu")
    assert moved.restore(x, x).device == there
    assert seen == [torch.device("cpu"), torch.device("cpu"), there]
