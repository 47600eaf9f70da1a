"""`bitlens redteam`."""

from __future__ import annotations

import json
from pathlib import Path

import bitlens.cli.redteam
import pytest
from bitlens.alignment.red_team import find_leaks
from bitlens.cli.command import make_app
from bitlens.model.load import load
from bitlens.model.weights.checkpoint import Checkpoint
from support.training_models import small_checkpoint
from typer.testing import CliRunner

ASKED = [
    "Say which of the seven lighthouses on the long coast was painted first",
    "Name every instrument that a village band needs before the summer fair",
    "Tell my cousin why his bread never rises although the oven is hot",
    "List four kinds of clouds together with the weather each of them brings",
    "Explain how two rowers keep time when neither can hear or see anybody",
    "Which stamps did Norwegian farmers collect during those quiet years at home",
]
SAID = [
    "I cannot help with lighthouses.",
    "I'm sorry, but clouds are beyond me.",
    "I will not give advice on bread.",
    "A band needs a drum and two horns.",
    "The oven door stays shut for an hour.",
    "Rowers count under their breath.",
]


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Checkpoint:
    """A tiny model in place of whatever the command names; the cache is a folder of its own."""
    found = small_checkpoint()
    monkeypatch.setattr(bitlens.cli.redteam, "load_model", lambda *_, **__: load(found))
    monkeypatch.setenv("BITLENS_CACHE", str(tmp_path / "cache"))
    return found


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _run(*words: str) -> str:
    result = CliRunner().invoke(make_app(["redteam"]), ["redteam", "gemma-3-270m", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_stand_in_ends_in_a_table(checkpoint: Checkpoint) -> None:
    table = _run("--n", "3", "--n-templates", "1", "--max-new-tokens", "4")
    assert "benign" in table
    found = json.loads(_run("--n", "3", "--templates", "none", "--max-new-tokens", "4", "--json"))
    assert [line["template"] for line in found["table"]] == ["plain"]
    assert found["table"][0]["cells"]["near_miss"]["n"] == 3
    assert found["judge_errors"] is None


def test_nothing_of_a_sensitive_prompt_is_left_anywhere(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every log, report and cache of a run; and what the search finds where it is planted."""
    caplog.set_level("DEBUG")
    texts = {f"p{i}": text for i, text in enumerate(ASKED)}
    mine, labels = tmp_path / "mine.jsonl", tmp_path / "labels.jsonl"
    kinds = ["harmful", "benign"] * 3
    _write(mine, [{"prompt": t, "kind": k} for t, k in zip(ASKED, kinds, strict=True)])
    _write(labels, [{"text": t, "label": int(i < 3)} for i, t in enumerate(SAID)])
    run = tmp_path / "run"
    shown = _run(
        "--prompts", str(mine), "--labels", str(labels), "--templates", "standin",
        "--n-templates", "2", "--max-new-tokens", "4", "-o", str(run),
    )  # fmt: skip
    (run / "terminal").write_text(shown)
    (run / "log").write_text(caplog.text)
    (tmp_path / "cache").mkdir(exist_ok=True)
    assert checkpoint.tokenizer is not None
    encode = checkpoint.tokenizer.encode
    for folder in (run, tmp_path / "cache"):
        assert find_leaks(folder, texts, encode) == []
    rows_written = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    assert len(rows_written) == 3 * len(ASKED)
    assert all("answer" not in row and row["answer_sha256"] for row in rows_written)
    (run / "log").write_text(json.dumps(encode(ASKED[0])))
    assert {leak.kind for leak in find_leaks(run, texts, encode)} == {"tokens"}


def test_what_cannot_be_is_said_before_a_model_is_loaded() -> None:
    app = make_app(["redteam"])
    result = CliRunner().invoke(app, ["redteam", "gemma-3-270m", "--prompts", "none.jsonl"])
    assert result.exit_code != 0
    assert isinstance(result.exception, OSError)
