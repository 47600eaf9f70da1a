"""A run that is killed at any moment ends, once resumed, with the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bitlens.model.training import TrainConfig, train
from support.training_models import SUMS, small_model

SETTINGS = {
    "method": "sft",
    "steps": 60,
    "batch_size": 6,
    "lr": 3e-3,
    "held_out": 2,
    "checkpoint_every": 3,
}
SCRIPT = f"""
import sys
from bitlens.model.training import TrainConfig, train
from support.training_models import SUMS, small_model
config = TrainConfig(**{SETTINGS!r})
print("begun", flush=True)
run = train(small_model(), config, data=SUMS, output=sys.argv[1])
print(run.weights_digest)
"""


def _start(folder: Path) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@pytest.mark.nightly
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    whole = train(small_model(), TrainConfig(**SETTINGS), data=SUMS, output=tmp_path / "whole")
    moments, killed = random.Random(0), 0
    for _ in range(20):
        process = _start(tmp_path / "cut")
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(moments.uniform(0.0, 0.5))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    process = _start(tmp_path / "cut")
    out, _ = process.communicate()
    assert out.split()[-1] == whole.weights_digest
    assert killed > 5
    found = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert found["after"] == whole.after
