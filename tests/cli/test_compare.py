"""`bitlens compare`, and the pytest fixture of the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import Run, command_runner

pytest_plugins = ["pytester"]


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "compare")


def _write(path: Path, wrong: int) -> Path:
    rows = [{"id": i, "score": i >= wrong} for i in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_runs(compare: Run, tmp_path: Path) -> None:
    a, b = _write(tmp_path / "a.jsonl", 0), _write(tmp_path / "b.jsonl", 12)
    code, out, _ = compare(a, b)
    assert code == 1
    assert "worse: all" in out
    code, out, _ = compare(a, a, "--margin", "0.01")
    assert code == 0
    assert "shown to lie within 0.01" in out
    code, out, _ = compare(a, b, "--json", "--margin", "0.01")
    found = json.loads(out)
    assert code == 1
    assert found["lost"] == 12
    assert found["worse"] == ["all"]
    assert {"difference", "low", "high", "mcnemar_p", "tost_p", "detectable"} <= set(found)
    looks = tmp_path / "looks.jsonl"
    assert compare(a, a, "--canaries", looks)[0] == 0
    code, out, _ = compare(a, _write(tmp_path / "c.jsonl", 120), "--canaries", looks)
    assert code == 1
    assert "2 looks: the model moved" in out


def test_plan(compare: Run) -> None:
    code, out, _ = compare("--plan", "--effect", "0.001")
    assert code == 0
    assert "15,695 items" in out
    code, out, _ = compare("--plan", "--effect", "0.001", "--discordance", "0.05", "--json")
    assert json.loads(out)["items"] == 392_442


def test_bad_input(compare: Run, tmp_path: Path) -> None:
    a = _write(tmp_path / "a.jsonl", 0)
    assert compare(a)[0] == 2
    assert compare("--plan")[0] == 2
    assert compare(a, a, "--effect", "0.1")[0] == 2
    code, _, err = compare(a, tmp_path / "none.jsonl")
    assert code == 2
    assert "no such file" in err


def test_the_fixture(pytester: pytest.Pytester, tmp_path: Path) -> None:
    a, b = _write(tmp_path / "a.jsonl", 0), _write(tmp_path / "b.jsonl", 12)
    pytester.makepyfile(
        f"""
        def test_same(compare_runs):
            assert compare_runs({str(a)!r}, {str(a)!r}, margin=0.01).difference == 0

        def test_worse(compare_runs):
            compare_runs({str(a)!r}, {str(b)!r})
        """
    )
    result = pytester.runpytest_inprocess("-p", "bitlens_pytest")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*worse: all; -0.0400 in*12 lost and 0 gained of 300*"])
