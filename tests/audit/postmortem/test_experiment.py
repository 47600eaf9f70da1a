"""`bitlens postmortem`: the experiment, the command and the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bitlens
import pytest
from bitlens.audit import postmortem
from bitlens.audit.postmortem import Rate, run_postmortem, shipped_prompts
from bitlens.audit.postmortem.experiment import DRAWS, EXACT, EXACT_ON_ROUNDED, FAULTS
from support.command_line import command_runner

SHARDS = [1, 3, 8]


@pytest.fixture(scope="module")
def rates(smollm2_path: Path) -> list[Rate]:
    model = bitlens.load(smollm2_path)
    seen: list[tuple[int, int]] = []
    found = run_postmortem(
        model, shipped_prompts()[:24], SHARDS, progress=lambda *step: seen.append(step)
    )
    assert seen == [(16, 24), (24, 24)]
    return found


def test_prompts_are_a_few_hundred_different_ones() -> None:
    prompts = shipped_prompts()
    assert len(prompts) >= 300
    assert len(set(prompts)) == len(prompts)
    assert all(prompt == prompt.strip() and prompt for prompt in prompts)


def test_every_sampler_at_every_shard_count(rates: list[Rate]) -> None:
    keys = [(rate.sampler, rate.shards) for rate in rates]
    samplers = [*FAULTS, EXACT, EXACT_ON_ROUNDED]
    assert sorted(keys) == sorted((s, n) for s in samplers for n in SHARDS)
    for rate in rates:
        assert 0 <= rate.best_lost <= rate.best_not_first <= rate.prompts == 24
        assert 0 <= rate.tokens_changed <= rate.prompts * DRAWS


def test_the_exact_sampler_never_loses_or_changes_a_token(rates: list[Rate]) -> None:
    exact = [rate for rate in rates if rate.sampler not in FAULTS]
    assert len(exact) == 2 * len(SHARDS)
    for rate in exact:
        assert (rate.best_lost, rate.best_not_first, rate.tokens_changed) == (0, 0, 0)


def test_the_faults_show_on_real_logits(rates: list[Rate]) -> None:
    """Negative control: the counting sees what is there."""
    found = {(rate.sampler, rate.shards): rate for rate in rates}
    for n in SHARDS:
        nucleus = found["excess precision, nucleus test", n]
        assert nucleus.best_lost > 0
        assert nucleus.tokens_changed >= nucleus.best_lost
        assert found["approximate top-k", n].best_lost == 0
    assert found["approximate top-k, tail lost", 8].best_lost > 0
    assert found["excess precision, odd shards' logits", 1].tokens_changed == 0


def test_bad_arguments(smollm2_path: Path) -> None:
    model = bitlens.load(smollm2_path)
    for prompts, shards in (([], [1]), (["a"], []), (["a"], [0]), (["a"], [5000])):
        with pytest.raises(ValueError, match="expected at least one prompt"):
            run_postmortem(model, prompts, shards)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs `bitlens postmortem ...` in a folder of its own; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    return command_runner(capsys, monkeypatch, "postmortem")


def test_the_command(run: Any, smollm2_path: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("The capital of France is\n\nOnce upon a\nSee you\n")
    picture = tmp_path / "rates.png"
    options = ("--prompts", prompts, "--n-prompts", "2", "--shards", "1,3")
    code, out, _ = run(smollm2_path, *options, "--json", "--plot", picture)
    assert code == 0
    answer = json.loads(out)
    assert answer["top_p"] == 0.95
    assert {row["shards"] for row in answer["rates"]} == {1, 3}
    assert all(row["prompts"] == 2 for row in answer["rates"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = tmp_path / "page.html"
    code, out, _ = run(smollm2_path, *options, "--output", page)
    assert code == 0
    assert "bitlens moved no token" in page.read_text("utf-8")
    assert f"bitlens postmortem {smollm2_path}" in page.read_text("utf-8")
    for text in ("best token lost", "sampled token changed", "never", "bitlens"):
        assert text in out


def test_help_has_an_example(run: Any) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "Example" in out


def test_exit_1_if_the_exact_sampler_moves(
    run: Any, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sampler, expected in ((EXACT, 1), ("approximate top-k", 0)):
        moved = [Rate(sampler, 1, 2, 0, 0, 1)]
        monkeypatch.setattr(postmortem, "run_postmortem", lambda *a, moved=moved, **o: moved)
        code, _, _ = run(smollm2_path, "--shards", "1")
        assert code == expected


def test_bad_options_are_one_line(
    run: Any, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(smollm2_path, "--shards", "1,two")
    assert code == 2
    assert "--shards 1,two" in err
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    code, _, err = run(smollm2_path, "--plot", "x.png")
    assert code == 2
    assert "pip install 'bitlens[bench]'" in err
