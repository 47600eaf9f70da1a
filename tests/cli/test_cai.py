"""`bitlens cai`: revise, label and run, with their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bitlens.alignment.standin import answer, prompts, refusal
from bitlens.model.load import load
from bitlens.model.training import export
from support.command_line import Run, command_runner
from support.standin_model import smallest_run, speaking_checkpoint

CONSTITUTION = """
[[critique]]
name = "a"
request = "Is it bad?"
revision = "Write it well."
[[comparison]]
name = "b"
instruction = "Which?"
[[example]]
prompt = "a"
answer = "a"
critique_request = "a"
critique = "a"
revision_request = "a"
revision = "a"
"""


@pytest.fixture
def cai(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "cai")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(load(speaking_checkpoint(), trainable="full"), tmp_path_factory.mktemp("model"))


@pytest.fixture
def constitution(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(CONSTITUTION)
    return path


def _written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_revise(cai: Run, model: Path, constitution: Path, tmp_path: Path) -> None:
    rows = [row.to_dict() for row in prompts("standin", 3, seed=0, templates="plain")]
    file, output = _written(tmp_path / "prompts.jsonl", rows), tmp_path / "revisions.jsonl"
    options = ("-o", output, "--constitution", constitution, "--rounds", 2, "--max-new-tokens", 4)
    code, stdout, stderr = cai("revise", model, file, *options, "--json")
    assert code == 0, stderr
    found = json.loads(stdout)
    assert [each["number"] for each in found["rounds"]] == [0, 1, 2]
    assert len(output.read_text().splitlines()) == 9
    assert found["constitution"] in output.read_text()
    code, stdout, _ = cai("revise", model, file, *options)
    assert code == 0
    assert "standin" in stdout
    code, _, stderr = cai("revise", model, file, *options, "--seed", 5)
    assert code == 2
    assert "of a run with another" in " ".join(stderr.split())


def test_label_exits_with_1_at_chance(
    cai: Run, model: Path, constitution: Path, tmp_path: Path
) -> None:
    rows = [
        {"prompt": row.text, "chosen": refusal(row), "rejected": answer(row), "id": row.id}
        for row in prompts("standin", 8, seed=0, templates="plain")
    ]
    file, output = _written(tmp_path / "pairs.jsonl", rows), tmp_path / "labels.jsonl"
    options = ("-o", output, "--constitution", constitution, "--form", "plain")
    code, stdout, stderr = cai("label", model, file, *options, "--json")
    assert code == 1, stderr
    found = json.loads(stdout)
    assert found["summary"]["n_known"] == 8
    assert not found["gate"]["passed"]
    options = ("-o", tmp_path / "ungated.jsonl", *options[2:])
    code, stdout, _ = cai("label", model, file, *options, "--ungated")
    assert code == 0
    assert '"ungated": true' in (tmp_path / "ungated.jsonl").read_text()
    assert "no better than chance" in stdout


def test_pairs_of_conversations(cai: Run, tmp_path: Path) -> None:
    ask = "\n\nHuman: How?"
    rows = [
        {"chosen": f"{ask}\n\nAssistant: So {i}.", "rejected": f"{ask}\n\nAssistant: No."}
        for i in range(3)
    ]
    file = _written(tmp_path / "hh.jsonl", [*rows, {"chosen": ask, "rejected": ask}])
    output = tmp_path / "pairs.jsonl"
    code, stdout, _ = cai("pairs", file, "-o", output, "--json")
    assert code == 0
    assert json.loads(stdout)["n"] == 3
    assert [json.loads(line)["chosen"] for line in output.read_text().splitlines()] == [
        "So 0.", "So 1.", "So 2.",
    ]  # fmt: skip
    code, stdout, _ = cai("pairs", file, "-o", output)
    assert "1 left out: not one answer each" in " ".join(stdout.split())
    code, _, stderr = cai("pairs", tmp_path / "none.jsonl", "-o", output)
    assert code == 2, stderr


def test_run(cai: Run, model: Path, constitution: Path, tmp_path: Path) -> None:
    settings = {**smallest_run(model, judge="model"), "constitution": str(constitution)}
    config = tmp_path / "cai.json"
    config.write_text(json.dumps(settings))
    code, stdout, stderr = cai("run", config, "-o", tmp_path / "run", "--json")
    assert code == 1, stderr
    found = json.loads(stdout)
    assert found["stopped"] == "gate"
    assert {cell["stage"] for cell in found["cells"]} == {"before", "sl"}
    assert (tmp_path / "run" / "report.html").exists()
    config.write_text('{"model": "x", "rouns": 1}')
    code, _, stderr = cai("run", config, "-o", tmp_path / "run")
    assert code == 2
    assert "rouns: no setting" in " ".join(stderr.split())
