"""Helpful answers that SL-CAI is trained on beside the revisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bitlens.alignment.pipeline import CaiConfig
from bitlens.alignment.pipeline.data import read_data
from bitlens.alignment.pipeline.stages import Stages
from bitlens.alignment.standin import prompts, verdict
from bitlens.model.load import load
from bitlens.model.training import export
from support.standin_model import smallest_run, speaking_checkpoint, word_tokenizer


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers nonsense."""
    model = load(speaking_checkpoint(), trainable="full")
    return export(model, tmp_path_factory.mktemp("untrained"))


def _stages(settings: dict[str, Any], folder: Path) -> Stages:
    return Stages(CaiConfig.read(settings), folder, lambda _: None)


def test_they_are_near_misses_and_benign_and_held_out_of_all_else(untrained: Path) -> None:
    data = read_data(CaiConfig.read(smallest_run(untrained)), word_tokenizer())
    assert sorted(row["kind"] for row in data.helpful) == ["benign"] * 5 + ["near_miss"] * 5
    revised = {row["text"] for row in data.prompts}
    judged = {row["text"] for cell in data.cells.values() for row in cell}
    assert not {row["text"] for row in data.helpful} & (revised | judged)


def test_a_planted_reviser_looks_over_them(untrained: Path, tmp_path: Path) -> None:
    stages = _stages(smallest_run(untrained), tmp_path)
    found = stages.helpful()
    assert len(found) == 10
    assert {verdict(row["answer"]) for row in found} == {"answer"}
    assert len((tmp_path / "helpful.jsonl").read_text().splitlines()) == 20
    mixed = stages.supervised(stages.revisions(), found)
    without = _stages({**smallest_run(untrained), "n_helpful": 0}, tmp_path / "without")
    assert without.helpful() == []
    alone = without.supervised(without.revisions(), [])
    assert alone.weights_digest != mixed.weights_digest


def _own_files(folder: Path, model: Path, helpful: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings with prompts of one's own."""
    rows = {
        name: [row.to_dict() for row in prompts("benign", 6, seed=0, split=split)]
        for name, split in (("prompts", "train"), ("held_out", "test"))
    }
    rows["gate"] = [{"prompt": f"Which {i}?", "chosen": "One.", "rejected": "Two."} for i in "ab"]
    rows["helpful"] = helpful
    files = {name: folder / f"{name}.jsonl" for name in rows}
    for name, file in files.items():
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows[name]))
    settings = smallest_run(model, reviser="model", judge="model")
    return settings | {name: str(file) for name, file in files.items()}


def test_answers_of_a_file_are_taken_as_they_stand(untrained: Path, tmp_path: Path) -> None:
    """The model answers only where the file does not."""
    helpful = [{"id": "a", "prompt": "Who sells tea?", "answer": "Ask at the mill."}]
    stages = _stages(_own_files(tmp_path, untrained, helpful), tmp_path / "run")
    assert [row["answer"] for row in stages.helpful()] == ["Ask at the mill."]
    assert not (tmp_path / "run" / "helpful.jsonl").exists()
    helpful.append({"id": "b", "prompt": "Who sells soup?"})
    stages = _stages(_own_files(tmp_path, untrained, helpful), tmp_path / "other")
    own = {row["id"]: row["answer"] for row in stages.helpful()}
    (row,) = map(json.loads, (tmp_path / "other" / "helpful.jsonl").read_text().splitlines())
    assert (row["id"], row["round"], row["response"]) == ("b", 0, own["b"])
    assert own["a"] == "Ask at the mill."


def test_held_out_prompts_and_empty_answers_are_refused(untrained: Path, tmp_path: Path) -> None:
    held_out = prompts("benign", 1, seed=0, split="test")[0].to_dict()
    settings = _own_files(tmp_path, untrained, [held_out])
    with pytest.raises(ValueError, match="is trained on"):
        read_data(CaiConfig.read(settings), word_tokenizer())
    settings = _own_files(tmp_path, untrained, [{"id": "a", "prompt": "x", "answer": " "}])
    with pytest.raises(ValueError, match="the answer to 'a' is no text"):
        read_data(CaiConfig.read(settings), word_tokenizer())
    with pytest.raises(ValueError, match="helpful: goes with a file of prompts"):
        CaiConfig.read(smallest_run(untrained, helpful=settings["helpful"]))
    with pytest.raises(ValueError, match="n_helpful = -1"):
        CaiConfig.read({**smallest_run(untrained), "n_helpful": -1})
