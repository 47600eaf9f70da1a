"""Every picture has a command that draws it; the first hour's script names what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import bitlens
import pytest

ROOT = Path(bitlens.__file__).resolve().parent
IMAGES = ROOT / "docs" / "images"


def recipe(target: str) -> str:
    """The commands of a target of the Makefile."""
    found = re.search(
        rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert found is not None
    return found[1]


def test_make_images_draws_every_picture() -> None:
    commands = recipe("images")
    assert "docs/draw_images.py" in commands
    suites = " ".join(re.findall(r"benchmarks ([a-z_ ]+)", commands)).split()
    sources = [ROOT / "docs" / "draw_images.py"]
    sources += [ROOT / "benchmarks" / "suites" / f"{suite}.py" for suite in suites]
    drawn = {name for path in sources for name in re.findall(r'"(\w+\.png)"', path.read_text())}
    assert drawn == {path.name for path in IMAGES.iterdir()}


def test_every_picture_is_shown() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {n for page in pages for n in re.findall(r"images/(\w+\.png)", page.read_text())}
    assert shown == {path.name for path in IMAGES.iterdir()}


def test_the_first_hour_runs_what_is_there() -> None:
    script = (ROOT / "docs" / "first_hour.sh").read_text()
    subprocess.run(["bash", "-n", ROOT / "docs" / "first_hour.sh"], check=True)
    assert os.access(ROOT / "docs" / "first_hour.sh", os.X_OK)
    examples = re.findall(r"docs/examples/\w+\.py", script)
    assert len(examples) == 3
    assert all((ROOT / example).exists() for example in examples)
    for step in ("first activation", "first verdict", "first report", "first alarm"):
        assert step in script


def test_a_step_says_its_seconds_and_a_broken_one_ends_the_script(tmp_path: Path) -> None:
    script = (ROOT / "docs" / "first_hour.sh").read_text()
    step = re.search(r"^step\(\) \{\n.*?^\}\n", script, re.MULTILINE | re.DOTALL)
    assert step is not None
    head = f'set -euo pipefail\nexport LC_ALL=C.UTF-8\nwork="{tmp_path}"\n{step[0]}'
    ran = subprocess.run(
        ["bash", "-c", f'{head}step "a nap" sleep 0.3\nstep "a fall" ls /none\nstep "more" true'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    seconds = re.match(r" *([\d.]+) s, +([\d.]+) s of processors  a nap\n", ran.stdout)
    assert seconds is not None
    assert float(seconds[1]) >= 0.3 > float(seconds[2])
    assert "/none" in ran.stdout
    assert ran.stdout.endswith("failed: a fall\n")


def test_a_first_verdict() -> None:
    example = ROOT / "docs" / "examples" / "first_verdict.py"
    ran = subprocess.run([sys.executable, example], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("norm: kept.")
    assert "narrow_norm: broken." in ran.stdout


@pytest.mark.nightly
def test_a_first_alarm(smollm2_path: Path) -> None:
    command = [sys.executable, ROOT / "docs" / "examples" / "first_alarm.py", smollm2_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1].startswith("alarm")
