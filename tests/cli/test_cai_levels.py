"""`bitlens cai levels` and `bitlens cai many-shot`."""

from __future__ import annotations

import json
from pathlib import Path

import bitlens.cli.cai_levels
import bitlens.cli.cai_many_shot
import pytest
from bitlens.cli.command import make_app
from bitlens.model.load import load
from support.random_models import byte_tokenizer, random_model
from support.training_models import small_checkpoint
from typer.testing import CliRunner


def _run(*words: str) -> str:
    result = CliRunner().invoke(make_app(["cai"]), ["cai", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_levels_end_in_a_table_and_what_was_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        bitlens.cli.cai_levels, "load_model", lambda *_, **__: load(small_checkpoint())
    )
    monkeypatch.setattr(bitlens.cli.cai_levels, "N_TRAINING", 4)
    words = ("levels", "gemma-3-270m", "--n", "3", "--n-tasks", "2", "--max-new-tokens", "4")
    options = ("--n-templates", "0", "--sft", "another", "-o", str(tmp_path))
    shown = _run(*words, *options)
    for name in ("n-gram filter", "probe filter", "monitor", "safety SFT", "not shown"):
        assert name in shown
    found = json.loads((tmp_path / "levels.json").read_text())
    assert {line["level"] for line in found["table"]} >= {"none", "monitor", "safety SFT"}
    again = json.loads(_run(*words, *options, "--json"))
    del again["times"], found["times"]
    for line in (*again["table"], *found["table"]):
        del line["ttft_ms"]
    assert again == found


def test_many_shots_end_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama", tokenizer=byte_tokenizer(), changes={"n_ctx": 400})
    monkeypatch.setattr(bitlens.cli.cai_many_shot, "load_model", lambda *_, **__: model)
    words = ("many-shot", "gemma-3-270m", "--n", "2", "--max-new-tokens", "2", "--shots", "1,64")
    shown = _run(*words)
    assert "from cache" in shown
    assert "Beyond the context: 64 shots" in shown
    points = json.loads(_run(*words, "--json"))["points"]
    assert [point["shots"] for point in points] == [0, 1]
    result = CliRunner().invoke(make_app(["cai"]), ["cai", *words[:-1], "none"])
    assert result.exit_code == 2
