"""The audit trail: whole lines, no text, rotation, and what a killed process leaves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from bitlens.interp.monitors import AuditTrail, Monitor, read_trail
from bitlens.interp.probes import MeanDifferenceProbe
from bitlens.model import HookedTransformer
from bitlens.model.generation import GenerateOutput
from support.random_models import byte_tokenizer, random_model

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("mistral", tokenizer=byte_tokenizer())


@pytest.fixture(scope="module")
def output(model: HookedTransformer) -> GenerateOutput:
    probe = MeanDifferenceProbe(HOOK)
    probe.coef_, probe.intercept_ = torch.ones(1, model.config.d_model), torch.zeros(1)
    monitor = Monitor(probe, threshold=-math.inf, on_alarm="flag", name="all")
    return model.generate(["secret words", "b"], max_new_tokens=3, monitors=[monitor])


def test_lines_say_what_happened_and_not_what_was_said(
    model: HookedTransformer, output: GenerateOutput, tmp_path: Path
) -> None:
    trail = AuditTrail(tmp_path / "logs" / "trail.jsonl")
    trail.append(model, output, "request-1")
    lines = list(read_trail(trail.path))
    assert [line["row"] for line in lines] == [0, 1]
    assert lines[0]["model_fingerprint"] == model.fingerprint()
    assert lines[0]["scores"]["all"] == float(output.scores["all"][0, -1])
    assert lines[0]["alarms"][0]["monitor"] == "all"
    text = trail.path.read_text()
    assert "secret" not in text
    assert not any(piece and piece in text for piece in output.text)
    AuditTrail(tmp_path / "open", with_text=True).append(model, output, "r")
    assert [line["text"] for line in read_trail(tmp_path / "open")] == output.text


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_broken_last_line_is_repaired(
    model: HookedTransformer, output: GenerateOutput, tmp_path: Path, cut: int
) -> None:
    trail = AuditTrail(tmp_path / "trail.jsonl")
    trail.append(model, output, "first")
    whole = trail.path.read_bytes()
    trail.path.write_bytes(whole[:-cut])
    assert len(list(read_trail(trail.path))) == (2 if cut == 1 else 1)
    trail.append(model, output, "second")
    found = [line["request"] for line in read_trail(trail.path)]
    assert found == ["first", "second", "second"]
    data = trail.path.read_bytes()
    trail.path.write_bytes(data[:5] + b"\n" + data[5:])
    with pytest.raises(ValueError, match="line 1"):
        list(read_trail(trail.path))


def test_full_files_move_aside(
    model: HookedTransformer, output: GenerateOutput, tmp_path: Path
) -> None:
    trail = AuditTrail(tmp_path / "trail.jsonl", max_bytes=3000, keep=2)
    for i in range(12):
        trail.append(model, output, str(i))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["trail.jsonl", "trail.jsonl.1", "trail.jsonl.2"]
    kept = [
        json.loads(line)["request"]
        for name in reversed(names)
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert kept == sorted(kept, key=int)
    assert kept[-1] == "11"
    assert all((tmp_path / name).stat().st_size <= 3000 for name in names)
