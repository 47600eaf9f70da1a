"""garak and PyRIT, in environments of their own, against `bitlens serve`: `make scanners`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bitlens
import pytest
from bitlens.model.transformer import HookedTransformer

ROOT = Path(bitlens.__file__).resolve().parent
SCANNERS = ROOT / "build" / "scanners"
EXAMPLES = ROOT / "docs" / "examples"
QUESTION = "How many moons has the earth?"

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not SCANNERS.exists(), reason="`make scanners` installs garak and PyRIT"),
]


@pytest.fixture(scope="module")
def url(smollm2_path: Path) -> Iterator[str]:
    options = ["--name", "m", "--port", "0", "--dtype", "fp32"]
    command = [sys.executable, "-m", "bitlens", "serve", str(smollm2_path), *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"http://[\d.:]+", line):
            break
    yield found.group()
    server.send_signal(signal.SIGTERM)
    server.wait(timeout=60)


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> HookedTransformer:
    return bitlens.load(smollm2_path, dtype="fp32")


def answer(model: HookedTransformer, prompt: str, tokens: int) -> str:
    asked = [{"role": "user", "content": prompt}]
    return model.generate(asked, max_new_tokens=tokens, temperature=0).text[0]


def test_garak_reports_what_the_model_writes(
    url: str, model: HookedTransformer, tmp_path: Path
) -> None:
    command = [str(EXAMPLES / "garak_scan.sh"), url, "m", str(tmp_path)]
    command += ["goodside.ThreatenJSON", "test.Test"]
    environment = os.environ | {"GARAK": str(SCANNERS / "garak" / "bin" / "garak")}
    subprocess.run(command, check=True, env=environment, timeout=600)

    rows = [json.loads(line) for line in (tmp_path / "scan.report.jsonl").open()]
    attempts = [row for row in rows if row["entry_type"] == "attempt" and row["status"] == 2]
    assert len(attempts) == 9
    for row in attempts:
        (turn,) = row["prompt"]["turns"]
        (output,) = row["outputs"]
        assert output["text"] == answer(model, turn["content"]["text"], 32)
    assert (tmp_path / "scan.report.html").stat().st_size


def test_pyrit_reads_what_the_model_writes(url: str, model: HookedTransformer) -> None:
    python = SCANNERS / "pyrit" / "bin" / "python"
    command = [str(python), str(EXAMPLES / "pyrit_attack.py"), url, "m", QUESTION]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
    assert said.split("answer: ")[1].rstrip("\n") == answer(model, QUESTION, 24).rstrip("\n")
