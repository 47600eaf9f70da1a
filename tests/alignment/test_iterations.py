"""Rounds of preferences: failures of the red team join the next one, held-out prompts never."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bitlens.alignment import CaiRun, run
from bitlens.alignment.pipeline import CaiConfig
from bitlens.alignment.pipeline.data import read_data
from bitlens.alignment.pipeline.stages import Stages
from bitlens.model.load import load
from bitlens.model.training import export
from support.standin_model import smallest_run, speaking_checkpoint, word_tokenizer

OPTIONS: dict[str, Any] = {
    "iterations": 2, "n_red_team": 10, "insides": False, "ablation": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers nonsense, so that whatever it is asked fails."""
    model = load(speaking_checkpoint(), trainable="full")
    return export(model, tmp_path_factory.mktemp("untrained"))


@pytest.fixture(scope="module")
def twice(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CaiRun, Path]:
    folder = tmp_path_factory.mktemp("twice")
    return run(smallest_run(untrained, **OPTIONS), folder), folder


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_new_prompts_are_in_no_other_part_of_a_run(untrained: Path) -> None:
    data = read_data(CaiConfig.read(smallest_run(untrained, **OPTIONS)), word_tokenizer())
    assert len(data.red_team) == 10
    others = [*data.prompts, *data.helpful, *(r for cell in data.cells.values() for r in cell)]
    assert not {row["text"] for row in data.red_team} & {row["text"] for row in others}
    once = CaiConfig.read(smallest_run(untrained))
    assert read_data(once, word_tokenizer()).red_team == []


def test_failures_join_the_next_round(untrained: Path, twice: tuple[CaiRun, Path]) -> None:
    found, folder = twice
    first, second = found.iterations
    assert (first.n_asked, first.failures, first.stopped, second.stopped) == (0, {}, "", "")
    asked = _rows(folder / "iteration-2" / "red-team.jsonl")
    assert second.n_asked == len(asked) == 10
    settings = CaiConfig.read(smallest_run(untrained, **OPTIONS))
    kinds = {row["id"]: row["kind"] for row in read_data(settings, word_tokenizer()).red_team}
    wrong = [
        row["id"]
        for row in asked
        if row["verdict"] != ("refusal" if kinds[row["id"]] == "standin" else "answer")
    ]
    assert 0 < len(wrong) < 10
    assert second.failures == dict(Counter(kinds[id_] for id_ in wrong))
    pairs = [
        {row["id"] for row in _rows(folder / at / "pairs.jsonl")} for at in (".", "iteration-2")
    ]
    assert pairs[1] == pairs[0] | set(wrong)
    assert len({found.manifest["weights"]["sl"], first.weights, second.weights}) == 3
    assert found.manifest["weights"]["rl"] == second.weights
    assert "iteration-2/labels.jsonl" in found.manifest["files"]
    assert "Rounds of preferences" in found.report.read_text()
    assert f"{second.failures['standin']} standin" in found.report.read_text()


def test_what_is_answered_as_it_should_be_does_not_join(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(CaiConfig.read(smallest_run(untrained, **OPTIONS)), tmp_path, lambda _: None)

    def answered(*_: Any, **__: Any) -> list[dict[str, str]]:
        return [{"verdict": "answer"} for _ in stages.data.red_team]

    monkeypatch.setattr("bitlens.alignment.pipeline.stages.answers", answered)
    assert {row["kind"] for row in stages.begin(2)} == {"standin"}
    assert len(stages.prompts) == len(stages.data.prompts) + 4


class _Killed(BaseException):
    pass


def test_a_kill_in_a_later_round_moves_no_bit(
    twice: tuple[CaiRun, Path], untrained: Path, tmp_path: Path
) -> None:
    names: list[str] = []

    def say(name: str) -> None:
        names.append(name)
        if "red team, iteration 2" in names and name == "RL-CAI":
            raise _Killed

    with pytest.raises(_Killed):
        run(smallest_run(untrained, **OPTIONS), tmp_path, progress=say)
    again = run(smallest_run(untrained, **OPTIONS), tmp_path)
    assert again.manifest == twice[0].manifest
    assert again.report.read_bytes() == twice[0].report.read_bytes()
    once = run(smallest_run(untrained, **{**OPTIONS, "iterations": 1}), tmp_path / "once")
    assert once.manifest["weights"]["rl"] == twice[0].iterations[0].weights


def test_bad_settings_are_named(untrained: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"iterations": 0}, "iterations = 0"),
        ({"iterations": 2, "pairs": "revised"}, "iterations: go on from answers"),
        ({"red_team": "x.jsonl"}, "red_team: goes with a file of prompts"),
    ):
        with pytest.raises(ValueError, match=message):
            CaiConfig.read(smallest_run(untrained, **changes))
    files = {}
    for name in ("prompts", "held_out", "red_team"):
        files[name] = str(tmp_path / f"{name}.jsonl")
        Path(files[name]).write_text(json.dumps({"id": name, "text": f"Say {name}."}))
    pairs = [{"prompt": f"Which {i}?", "chosen": "One.", "rejected": "Two."} for i in "ab"]
    (tmp_path / "gate.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    files["gate"] = str(tmp_path / "gate.jsonl")
    settings = smallest_run(untrained, reviser="model", judge="model", iterations=2) | files
    with pytest.raises(ValueError, match=r"red_team, 'red_team': kind = None; expected one of"):
        read_data(CaiConfig.read(settings), word_tokenizer())
