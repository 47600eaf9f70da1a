"""The audit: right paths pass, faults are found at their address, and the scripts show it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens import load
from bitlens.audit import AuditResult, Plan, audit, run_audit
from bitlens.audit.judging import Tally
from bitlens.audit.paths import ModelPath, bitlens_path, path_on_trial, reference_path
from bitlens.audit.reproduce import reproducer
from bitlens.audit.texts import Texts, texts
from bitlens.cli.audit import _read_prompts
from bitlens.precision.certificate import EquivalenceCertificate
from bitlens.precision.inject import inject_fault
from support.command_line import command_runner
from support.speaking_llama import write_speaking_llama

PLAN = Plan(tokens=24, checked=2, rows=4)
PROMPTS = ["Once upon", "def f(x):", "The cat sat on the mat and", "0 1 2"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def paths(llama: Path) -> tuple[ModelPath, ModelPath, Texts]:
    a, model = reference_path(str(llama), "fp32")
    return a, path_on_trial(str(llama), "bf16", a), texts(model, PROMPTS, PLAN.tokens, seed=0)


def _exit_code(script: str) -> object:
    """Runs a reproducer's source as it stands."""
    with pytest.raises(SystemExit) as leaving:
        exec(compile(script, "reproducer.py", "exec"), {"__name__": "__main__"})
    return leaving.value.code


def _check_counts(result: AuditResult) -> None:
    flips = result.flips
    assert sum(b.positions for b in flips.margins) == flips.positions == 4 * 24
    assert sum(b.flips for b in flips.margins) == flips.flips
    assert flips.interval[0] <= flips.rate <= flips.interval[1]
    assert flips.broken_certificates == 0
    assert 0 < flips.proven <= flips.positions
    assert 0 < flips.certified <= flips.positions
    assert all(op.values > 0 and op.created_error >= 0 for op in result.ops)
    for found in result.histograms:
        judged = sum(op.values for op in result.ops if op.kind == found.kind)
        assert 0 < found.values <= judged


@pytest.mark.parametrize("choice", ["bf16", "hf", "hf-bf16"])
def test_right_paths_keep_their_contracts(
    llama: Path, choice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stages: list[tuple[str, int, int]] = []
    result = run_audit(str(llama), "fp32", choice, PROMPTS, PLAN, lambda *step: stages.append(step))
    assert result.ok, [op.reason for op in result.violated]
    assert result.setting.written == sum(max(0, 24 - len(prompt)) for prompt in PROMPTS)
    compared = [] if choice == "bf16" else ["checkpoints"]
    named = list(dict.fromkeys(stage for stage, _, _ in stages))
    assert named[: 3 + len(compared)] == ["loading", "writing", *compared, "tokens"]
    _check_counts(result)
    assert result.reproducer is not None
    capsys.readouterr()
    assert _exit_code(result.reproducer.script) == 0
    assert "permitted" in capsys.readouterr().out
    stated = EquivalenceCertificate.from_json(json.dumps(result.certificate))
    assert not stated.violated
    assert len(stated.contracts) == len(result.ops)


@pytest.mark.parametrize(
    ("fault", "at"),
    [
        ("truncating_cast", "blocks.1.mlp.down"),
        ("missing_upcast", "blocks.0.ln2"),
        ("low_precision_accumulator", "blocks.1.attn.q"),
        ("truncating_cast", "blocks.0.attn.attention"),
        ("low_precision_accumulator", "blocks.1.resid_post"),
    ],
)
def test_a_fault_is_found_where_it_is(
    paths: tuple[ModelPath, ModelPath, Texts],
    fault: str,
    at: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b, written = paths
    with inject_fault(b.model, fault, at=at):
        result = audit("faulty", a, b, written, PLAN)
    assert not result.ok
    assert [op.address for op in result.violated] == [at]
    assert (result.divergence.judge, result.divergence.first) == ("contract", at)
    assert result.violated[0].reason
    shrunk = result.reproducer
    assert shrunk is not None
    assert (shrunk.address, shrunk.violates, shrunk.diagnosis) == (at, True, fault)
    capsys.readouterr()
    assert _exit_code(shrunk.script) == 1
    assert "break the contract" in capsys.readouterr().out


def test_an_unknown_fault_is_quoted(
    paths: tuple[ModelPath, ModelPath, Texts], tmp_path: Path
) -> None:
    a, b, written = paths

    def wrong(original: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        y: torch.Tensor = original(*args, **kwargs)
        return y * 1.25

    with b.model.override("blocks.1.mlp.up", wrong):
        result = audit("odd", a, b, written, PLAN)
    shrunk = result.reproducer
    assert shrunk is not None
    assert (shrunk.diagnosis, shrunk.recomputes) == (None, False)
    file = tmp_path / "reproducer.py"
    file.write_text(shrunk.script, "utf-8")
    alone = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert alone.returncode == 1, alone.stderr
    assert "break the contract" in alone.stdout


def test_the_same_audit_gives_the_same_findings(
    paths: tuple[ModelPath, ModelPath, Texts],
) -> None:
    a, b, written = paths
    first, second = (audit("twice", a, b, written, PLAN).to_dict() for _ in range(2))
    assert {**first, "seconds": {}} == {**second, "seconds": {}}


@pytest.mark.parametrize(("quoted", "code"), [(False, 0), (True, 1)])
def test_a_scaled_rope_has_a_reproducer(tmp_path: Path, quoted: bool, code: int) -> None:
    """Recomputed where the kernels give the run's bits, quoted where nothing does."""
    scaling = {"rope_type": "linear", "factor": 2.0}
    model = load(write_speaking_llama(tmp_path, rope_scaling=scaling), dtype="bf16")
    b = bitlens_path("bf16", "bf16", model)
    site = model.site("blocks.0.attn.rope_q")
    tally = Tally(site.address, site.contract)

    def judge(original: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        y: torch.Tensor = original(*args, **kwargs)
        y = y * 1.25 if quoted else y
        tally.add(site.bind(*args, **kwargs), site.view(y))
        return y

    with model.override(site.address, judge), torch.no_grad():
        model(torch.arange(24))
    worst = tally.worst
    assert worst is not None
    shrunk = reproducer(worst, b.implementation, "scaled")
    assert shrunk.recomputes is not quoted
    assert shrunk.violates is quoted
    assert '"inv_freq": (' in shrunk.script
    assert _exit_code(shrunk.script) == code


def test_an_audit_of_a_scaled_rope(tmp_path: Path) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    source = write_speaking_llama(tmp_path, rope_scaling=scaling)
    assert run_audit(str(source), prompts=PROMPTS, plan=PLAN).ok


def test_another_checkpoint(llama: Path, tmp_path: Path) -> None:
    """Other weights keep their contracts and change every token."""
    other = write_speaking_llama(tmp_path / "other", seed=1)
    result = run_audit(str(llama), "fp32", str(other), PROMPTS, PLAN)
    assert result.kept
    assert not result.ok
    assert result.setting.b == "other"
    assert result.flips.flips > result.flips.positions / 2
    assert result.divergence.judge == "bits"


def test_bad_input_is_named(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.tiny_llama import write_tiny_llama

    foreign = write_tiny_llama(tmp_path / "foreign")
    for a, b, cause in (
        ("fp64", "bf16", "--a fp64"),
        ("fp32", "fp32", "the same path"),
        ("fp32", "fp8", "--b fp8: no such"),
        ("fp32", str(foreign), "vocabulary of 97 against 256"),
    ):
        with pytest.raises(ValueError, match=cause):
            run_audit(str(llama), a, b, PROMPTS, PLAN)
    for prompts, plan, cause in (
        (PROMPTS[:1], PLAN, "at least two"),
        ([], PLAN, "no prompts"),
        (PROMPTS, Plan(tokens=97), "expected 2 to 96"),
    ):
        with pytest.raises(ValueError, match=cause):
            run_audit(str(llama), prompts=prompts, plan=plan)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RuntimeError, match=r"pip install 'bitlens\[interop\]'"):
        run_audit(str(llama), "fp32", "hf", PROMPTS, PLAN)
    for wrong in ({"checked": 0}, {"rows": 0}, {"margin": 1.0}):
        with pytest.raises(ValueError):
            Plan(**wrong)  # type: ignore[arg-type]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `bitlens audit ...`; returns (exit code, stdout, stderr)."""
    return command_runner(capsys, monkeypatch, "audit")


def test_the_command(run: Any, llama: Path, tmp_path: Path) -> None:
    prompts, page = tmp_path / "prompts.txt", tmp_path / "page.html"
    prompts.write_text("One\n\nTwo <b>bold</b>\nThree\n", "utf-8")
    options = ("--prompts", prompts, "--n-prompts", "2", "--tokens", "16", "--checked", "1")
    code, out, _ = run(llama, *options, "--output", page, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["ok"] is True
    assert found["setting"]["prompts"] == 2
    assert "kept its contract" in page.read_text("utf-8")
    code, out, _ = run(llama, *options, "--output", page, "--b", "hf")
    assert code == 0
    for words in ("contract kept", "mlp.down", "of 32 flip", str(page)):
        assert words in out.replace("\n", "")


def test_a_passing_run_is_not_accused(
    run: Any, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from bitlens import audit as package
    from support.audit_sample import sample

    whole = sample()
    for judge, words in (("relative", "by more than rounding to the coarser format"), ("bits", "")):
        found = dataclasses.replace(whole.divergence, judge=judge, first="blocks.2.ln1")
        right = dataclasses.replace(whole, divergence=found)
        monkeypatch.setattr(package, "run_audit", lambda *_, right=right, **__: right)
        page = tmp_path / "page.html"
        code, out, _ = run(llama, "--output", page)
        plain = " ".join(out.split())
        assert code == 0
        assert f"{words} first at blocks.2.ln1" in plain
        assert "0.97% to 1.50%: 95%, prompts as clusters" in plain
        for text in (plain, page.read_text("utf-8")):
            assert "first divergent" not in text.lower()


def test_exit_1_for_a_broken_contract(
    run: Any, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitlens import audit as package
    from support.audit_sample import sample

    monkeypatch.setattr(package, "run_audit", lambda *_, **__: sample(violated=True))
    page = tmp_path / "page.html"
    code, out, _ = run(llama, "--output", page)
    assert code == 1
    assert "contract broken" in out
    assert "first divergent operation: blocks.7.mlp.down" in out
    assert "blocks.7.mlp.down" in out
    assert "broke its contract" in page.read_text("utf-8")


def test_only_newlines_part_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("one\u2028still\fone\r\n \ntwo\n".encode())
    assert _read_prompts(file) == ["one\u2028still\fone", "two"]


def test_bad_usage_is_one_line(run: Any, llama: Path, tmp_path: Path) -> None:
    latin, one = tmp_path / "latin.txt", tmp_path / "one.txt"
    latin.write_bytes("caf\u00e9\nbar\n".encode("latin-1"))
    one.write_text("alone\n\n", "utf-8")
    for options, cause in (
        (("--output", tmp_path / "no" / "page.html"), "there is no directory"),
        (("--output", tmp_path), "this is a directory"),
        (("--prompts", tmp_path / "none.txt"), "none.txt: No such file"),
        (("--prompts", tmp_path), f"--prompts {tmp_path}: Is a directory"),
        (("--prompts", latin), "latin.txt: not UTF-8 at byte 3"),
        (("--prompts", one), "one.txt: lines with text: 1; intervals need at least two"),
        (("--b", "fp16"), "--b fp16"),
        (("--margin", "2"), "margin 2"),
        (("--n-prompts", "1"), "n-prompts"),
    ):
        code, _, err = run(llama, *options)
        assert code == 2
        assert cause in err.replace("\n", "")
        assert "Traceback" not in err
