"""docs/monitor.md runs, `bitlens watch` watches, and its page escapes what a model wrote."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.interp.monitors import read_trail
from bitlens.interp.monitors.page import ScoredToken, WatchedText, mark, page
from bitlens.interp.probes import MeanDifferenceProbe
from support.command_line import command_runner

PAGE = Path(bitlens.__file__).resolve().parent / "docs" / "monitor.md"
HOOK = "blocks.15.hook_resid_post"


@pytest.fixture(scope="module")
def probe_folder(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe whose threshold nothing reaches."""
    probe = MeanDifferenceProbe(HOOK, skip_first=1)
    probe.coef_ = torch.randn(1, 576, generator=torch.Generator().manual_seed(0))
    probe.intercept_ = torch.zeros(1)
    probe.threshold_ = 1e6
    folder = tmp_path_factory.mktemp("watch") / "probe"
    probe.save(folder)
    return folder


def test_the_documents_example_runs(smollm2_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    result, answer = namespace["result"], namespace["answer"]
    assert result.alarms == answer.alarms == []
    n = len(answer.scores["harm"])
    (alone,) = (scores[0, :n] for scores in result.scores.values())
    assert torch.equal(answer.scores["harm"].view(torch.int32), alone.view(torch.int32))
    assert abs(namespace["why"].rounding) <= namespace["why"].rounding_bound


def test_watch(
    probe_folder: Path,
    smollm2_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = command_runner(capsys, monkeypatch)
    fixed = ("watch", smollm2_path, "--probe", probe_folder, "--max-new-tokens", "4")
    code, out, _ = run(*fixed, "--probe", "refusal", "-p", "Paris is", "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["position"] for line in lines] == list(range(1, 6))
    assert set(lines[0]) == {"row", "position", "token_id", "scores", "alarm"}
    assert set(lines[0]["scores"]) == {"probe", "refusal"}
    (tmp_path / "prompts.txt").write_text("Paris is\nRome was\n")
    written = ("--html", tmp_path / "page.html", "--trail", tmp_path / "trail.jsonl")
    prompts = ("--prompts", tmp_path / "prompts.txt", "--threshold", "-1e6")
    code, out, _ = run(*fixed, *prompts, *written)
    assert code == 1
    assert "at position 1" in out
    assert (tmp_path / "page.html").read_text().count("<section>") == 2
    trail = list(read_trail(tmp_path / "trail.jsonl"))
    assert [line["finish_reason"] for line in trail] == ["alarm", "alarm"]


def test_what_a_model_wrote_is_escaped() -> None:
    tokens = [ScoredToken("<script>alert(1)</script>", 2.0, is_new=True)]
    text = WatchedText("<b>", 1.0, "length", tokens, [])
    shown = page("t", {"model": "<i>"}, [text])
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "default-src 'none'" in shown


def test_marks() -> None:
    assert mark(None, 0.0) == mark(1.0, math.inf) == 0
    assert mark(0.1, 0.0) == 1
    assert mark(-0.1, 0.0) == -1
    assert mark(50.0, 0.0) == 8
