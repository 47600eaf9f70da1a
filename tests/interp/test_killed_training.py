"""kill -9 at random moments of a harvest and of training: the same command goes on, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bitlens.interp.dictionaries import load_dictionary
from bitlens.model.hooks.registry import same_bits
from support.training_runs import speaking_model

SCRIPT = Path(__file__).parents[1] / "support" / "training_runs.py"
STEPS = 60


def begin(model: Path, output: Path) -> subprocess.Popen[str]:
    """Starts the run, which prints a line after each batch of its harvest and each step."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), *sys.path])}
    command = [sys.executable, str(SCRIPT), str(model), str(output), str(STEPS)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str], lines: list[str], target: int, delay: float) -> int:
    """Kills the run `delay` seconds after it is at line `target` of an unbroken run, or beyond;
    returns where it was."""
    assert process.stdout is not None
    at = -1
    while at < target:
        at = lines.index(process.stdout.readline().strip())
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return at


def log_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: x for name, x in line.items() if name != "rows_per_s"} for line in lines]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.nightly)])
def test_no_bit_moves(kills: int, tmp_path: Path) -> None:
    model, whole, killed = (tmp_path / name for name in ("model", "whole", "killed"))
    speaking_model(model)
    process = begin(model, whole)
    lines = process.communicate()[0].split()
    assert process.returncode == 0
    assert lines[-1] == f"training-{STEPS}"
    source = random.Random(0)
    # The delay, up to two steps long, reaches into the writing of shards and checkpoints.
    places = [
        lines[kill(begin(model, killed), lines, target, source.uniform(0, 0.02))]
        for target in sorted(source.sample(range(len(lines) - 8), kills))
    ]
    assert {place.split("-")[0] for place in places} == {"harvest", "training"}
    process = begin(model, killed)
    remaining = process.communicate()[0].split()
    assert process.returncode == 0
    assert len(remaining) < len(lines)  # it went on, and did not begin anew
    a, b = (load_dictionary(run / "dictionary") for run in (whole, killed))
    for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True):
        assert same_bits(x, y), name
    assert log_of(whole) == log_of(killed)
    names = [sorted(p.name for p in run.rglob("*")) for run in (whole, killed)]
    assert names[0] == names[1]
