"""The `bitlens` command: what it prints, and how it exits."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any, get_args

import bitlens
import pytest
from bitlens.audit.invariance import verify as verify_module
from bitlens.cli.console import INTERNAL_ERROR
from bitlens.cli.options import Backend
from bitlens.model.load import Backend as BackendName
from bitlens.model.ops.policy import NATIVE_POLICIES, POLICIES
from bitlens.model.sources import ALIASES
from bitlens.policies import NativePolicyName, PolicyName
from support.command_line import command_runner
from support.tiny_llama import write_tiny_llama

Run = Any


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `bitlens ...`; returns (exit code, stdout, stderr)."""
    return command_runner(capsys, monkeypatch)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"))


def test_help_lists_every_command_with_examples(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("generate", "info", "fetch", "verify", "bench", "audit", "context-cost"):
        assert command in out
        code, help_, _ = run(command, "--help")
        assert code == 0
        assert "Example" in help_


def test_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.split() == [
        "bitlens",
        f"{bitlens.__version__},",
        "numerics",
        bitlens.numerics_version,
    ]


def test_generate_answers_from_the_real_model(run: Run, smollm2_path: Path) -> None:
    options = ("--prompt", "The capital of France is", "--max-new-tokens", "3")
    code, streamed, _ = run("generate", smollm2_path, *options)
    assert code == 0
    assert "Paris" in streamed
    code, out, _ = run("generate", smollm2_path, *options, "--json", "--threads", "1")
    answer = json.loads(out)
    assert code == 0
    assert answer["text"].strip() == streamed.strip()
    assert answer["new_tokens"] == 3
    assert answer["threads"] == 1


def test_generate_reads_stdin_and_obeys_the_seed(
    run: Run, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []
    for seed in (5, 5, 6):
        monkeypatch.setattr("sys.stdin", io.StringIO("Once upon a time"))
        options = ("--temperature", "1.5", "--seed", str(seed), "--max-new-tokens", "6", "--json")
        code, out, _ = run("generate", smollm2_path, *options)
        assert code == 0
        texts.append(json.loads(out)["text"])
    assert texts[0] == texts[1] != texts[2]


def test_chat_uses_the_template(run: Run, smollm2_path: Path) -> None:
    options = ("--chat", "-p", "Say hello.", "--max-new-tokens", "8", "--json")
    code, out, _ = run("generate", smollm2_path, *options)
    assert code == 0
    assert "Hello" in json.loads(out)["text"]


def test_info(run: Run, smollm2_path: Path) -> None:
    code, out, _ = run("info", smollm2_path)
    assert code == 0
    for fact in ("llama", "134,515,008", "49,152", "8,192", "soft caps", "Q4_1", bitlens.isa()):
        assert fact in out
    code, out, _ = run("info", smollm2_path, "--json", "--dtype", "bf16")
    facts = json.loads(out)
    assert code == 0
    assert facts["config"]["n_layers"] == 30
    assert facts["dtype"] == "bf16"
    assert any(isa in facts["bf16_products"] for isa in bitlens._core.available_isas())
    assert set(facts["storage"]) == {"BF16"}


def test_fetch_prints_the_path(run: Run, smollm2_path: Path) -> None:
    code, out, _ = run("fetch", "smollm2-135m-instruct")
    assert code == 0
    assert Path(out.strip()) == smollm2_path


def test_verify_and_bench_on_a_small_model(run: Run, tiny_llama: Path) -> None:
    code, out, _ = run("verify", tiny_llama, "--quick", "--json")
    assert code == 0
    assert json.loads(out)["ok"] is True
    options = ("--prompt-tokens", "5", "--new-tokens", "2", "--rounds", "1")
    code, out, _ = run("bench", tiny_llama, *options, "--json")
    assert code == 0
    rates = json.loads(out)["tokens_per_second"]
    assert set(rates) == {"native", "torch"}
    assert all(rate > 0 for speeds in rates.values() for rate in speeds.values())
    code, out, _ = run("bench", tiny_llama, *options)
    assert code == 0
    assert "native / torch" in out


def test_every_policy_is_offered(run: Run, tiny_llama: Path) -> None:
    assert {choice.value for choice in PolicyName} == set(POLICIES)
    assert [choice.value for choice in NativePolicyName] == list(NATIVE_POLICIES)
    code, out, _ = run("verify", tiny_llama, "--quick", "--dtype", "hf_bf16", "--json")
    assert (code, json.loads(out)["dtype"]) == (0, "hf_bf16")


def test_every_backend_and_alias_is_offered(run: Run) -> None:
    assert tuple(choice.value for choice in Backend) == get_args(BackendName)
    _, out, _ = run("info", "--help")
    assert all(alias in out for alias in ALIASES)


def test_verify_exits_1_where_a_bit_moves(
    run: Run, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (
        verify_module.VerifyRow("threads", "1, 2", 10, 0, False, "read back"),
        verify_module.VerifyRow("padding", "left", 10, 3, False, "padded"),
        verify_module.VerifyRow("control", "other order", 10, 0, True, "recomputed"),
        verify_module.VerifyRow("fork", "child", 0, 0, False, "", "RuntimeError: no fork"),
    )
    report = verify_module.VerifyReport("a model", "fp32", "avx2", 2, "1", 0.5, rows)
    monkeypatch.setattr(verify_module, "verify", lambda *args, **options: report)
    code, out, _ = run("verify", tiny_llama)
    assert code == 1
    for word in ("same", "MOVED", "blind", "not run", "a promise is broken"):
        assert word in out
    sound = dataclasses.replace(report, rows=rows[:1])
    monkeypatch.setattr(verify_module, "verify", lambda *args, **options: sound)
    code, out, _ = run("verify", tiny_llama)
    assert code == 0
    assert "no bit moved" in out


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("info", "nowhere.gguf"), "nowhere.gguf"),
        (("fetch", "gpt-5"), "gpt-5"),
        (("generate", "{model}", "-p", "hi"), "tokenizer"),
        (("generate", "{model}", "-p", "hi", "--top-p", "7"), "top_p"),
        (("verify", "{model}", "--dtype", "fp64"), "fp64"),
        (("info", "{model}", "--dtype", "fp99"), "fp99"),
        (("generate", "{model}", "--max-new-tokens", "0"), "max-new-tokens"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_bad_input_exits_2_without_a_traceback(
    run: Run, tiny_llama: Path, arguments: tuple[str, ...], cause: str
) -> None:
    code, _, err = run(*(argument.format(model=tiny_llama) for argument in arguments))
    assert code == 2
    assert cause in err
    assert "Traceback" not in err


def test_a_bug_of_ours_is_not_a_violated_promise(
    run: Run, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise KeyError("positions")

    monkeypatch.setattr(verify_module, "verify", broken)
    code, _, err = run("verify", tiny_llama)
    assert code == INTERNAL_ERROR
    assert "Traceback" in err
    assert "positions" in err


def test_a_damaged_file_is_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 40)
    code, _, err = run("info", path)
    assert code == 2
    assert str(path) in err.replace("\n", "")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("info",),
        ("generate", "-p", "x"),
        ("verify",),
        ("bench",),
        ("audit", "--tokens", "20"),
        ("postmortem",),
        ("context-cost", "--measure"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_way_out_of_an_error_is_one_that_the_command_has(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Native kernels refuse dynamic RoPE, and name the backend that takes it."""
    file = write_tiny_llama(tmp_path) / "config.json"
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_parameters": rope}))
    command, *options = arguments
    code, _, err = run(command, tmp_path, *options)
    assert code == 2
    _, help_, _ = run(command, "--help")
    if "--backend" in help_:
        assert "--backend torch" in err
        assert 'backend="' not in err
    else:
        assert 'backend="torch" in Python' in err
        assert "--" not in err


def test_fp64_where_there_is_a_backend_for_it(run: Run, tiny_llama: Path) -> None:
    code, _, err = run("info", tiny_llama, "--dtype", "fp64")
    assert (code, "load with --backend torch" in err) == (2, True)
    code, out, _ = run("info", tiny_llama, "--dtype", "fp64", "--backend", "torch", "--json")
    assert (code, json.loads(out)["dtype"]) == (0, "fp64")
    for command in ("verify", "bench"):
        code, _, err = run(command, tiny_llama, "--dtype", "fp64")
        assert code == 2
        assert "'bf16_weights'" in err
        assert "backend" not in err
