"""`bitlens think`: a curve over budgets, and rows that `compare` pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bitlens.audit import compare
from bitlens.model.thinking import read_number, read_problems, sums
from support.command_line import Run, command_runner
from support.speaking_llama import write_speaking_llama


@pytest.fixture
def think(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "think")


def test_a_curve(think: Run, tmp_path: Path) -> None:
    model, tasks = write_speaking_llama(tmp_path / "model"), tmp_path / "tasks.jsonl"
    rows = [{"prompt": f"{i}+", "answer": i} for i in range(3)]
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = (model, "--tasks", tasks, "--budgets", "0,5-9", "--n", "3", "--answer-tokens", "4",
               "--start", "<", "--end", ">")  # fmt: skip
    output, picture = tmp_path / "samples.jsonl", tmp_path / "curve.png"
    code, out, err = think(*command, "--json", "--output", output, "--plot", picture)
    assert code == 0, err
    points = json.loads(out)["points"]
    assert [point["max_thinking"] for point in points] == [0, 9]
    assert 5 <= points[1]["thinking"] <= 9
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert compare(output, output).difference == 0
    code, out, _ = think(*command)
    assert code == 0
    assert "oracle" in out


def test_bad_input(think: Run, tmp_path: Path) -> None:
    model = write_speaking_llama(tmp_path / "model")
    assert think(model, "--budgets", "many")[0] == 2
    for row, said in (
        ("[]", "expected an object"),
        ('{"prompt": 3, "answer": "x"}', "prompt"),
        ('{"prompt": "a"}', "answer"),
        ('{"prompt', "line 1: not JSON"),
    ):
        path = tmp_path / "tasks.jsonl"
        path.write_text(row)
        code, _, err = think(model, "--tasks", path)
        assert code == 2, row
        assert said in err


def test_generated_sums() -> None:
    problems = sums(100, chat=False)
    assert len({str(problem.prompt) for problem in problems}) == 100
    for problem in sums(20, digits=2, seed=1, chat=False):
        a, b = map(int, str(problem.prompt).rstrip(" =").split(" + "))
        assert (str(a + b), True) == (problem.truth, min(a, b) >= 10 and max(a, b) < 100)
    assert read_number("It is 1,012, or 7.") == "1012"
    assert read_number("none") is None
    with pytest.raises(ValueError, match="expected 1 to 100"):
        sums(101)


def test_problems_of_a_conversation(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    turns = [{"role": "user", "content": "hi"}]
    path.write_text(json.dumps({"prompt": turns, "answer": "x", "cluster": 3}))
    (problem,) = read_problems(path)
    assert (problem.prompt, problem.truth, problem.cluster) == (turns, "x", "3")
