"""tests/support/nightly.py: stages cover every test, stop, resume, and record what happened."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import bitlens
import pytest
from support import nightly
from support.nightly import NightlyError, Stage, run, stages

ROOT = Path(bitlens.__file__).resolve().parent


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with one commit and an empty record."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "nightly.md").write_text("|---|\n")
    (tmp_path / ".gitignore").write_text("/build/\n")
    commit(tmp_path)
    return tmp_path


def commit(root: Path) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=root, check=True)


def stage(name: str, code: str) -> Stage:
    return Stage(name, (sys.executable, "-c", code))


def rows(root: Path) -> list[list[str]]:
    lines = (root / "docs" / "nightly.md").read_text().splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_test_is_in_one_stage() -> None:
    commands = [stage.command for stage in stages(ROOT)]
    run_here = [word for words in commands for word in words if word.startswith("tests/")]
    assert len(run_here) == len(set(run_here))
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(there - set(run_here)) == {
        file for file in there if file.startswith(nightly.BY_TARGETS)
    }
    assert len({stage.name for stage in stages(ROOT)}) == len(commands)


def test_targets_are_the_makefiles() -> None:
    text = (ROOT / "Makefile").read_text() + (ROOT / "csrc/spec_tests/Makefile.inc").read_text()
    assert set(nightly.TARGETS) <= set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


def test_a_stage_that_passed_is_not_run_again_on_its_commit(clone: Path) -> None:
    once = stage("once", "import pathlib; pathlib.Path('build/ran').open('a').write('x')")
    assert run(clone, [once]) == run(clone, [once]) == []
    assert (clone / "build" / "ran").read_text() == "x"
    (head,) = (clone / "build" / "nightly").iterdir()
    assert (head / "once.stamp").exists()
    assert [row[2:] for row in rows(clone)] == [["once", "0.0", "passed"]]
    assert rows(clone)[0][0] == head.name[:12]

    (clone / "new").touch()
    commit(clone)
    assert run(clone, [once]) == []
    assert (clone / "build" / "ran").read_text() == "xx"


def test_a_failure_is_recorded_and_run_again_and_others_still_run(clone: Path) -> None:
    both = [stage("bad", "raise SystemExit('why')"), stage("good", "")]
    assert run(clone, both) == ["bad"]
    assert run(clone, both) == ["bad"]
    assert [(row[2], row[4]) for row in rows(clone)] == [
        ("bad", "failed"),
        ("good", "passed"),
        ("bad", "failed"),
    ]
    (log,) = (clone / "build").rglob("bad.log")
    assert log.read_text().strip() == "why"


def test_a_stage_over_its_limit_is_stopped_with_its_children(clone: Path) -> None:
    """The child would leave a file, a little later than the limit."""
    child = "import pathlib, time; time.sleep(4); pathlib.Path('build/late').touch()"
    slow = stage(
        "slow", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    )
    assert run(clone, [slow], limit=1 / 60) == ["slow"]
    assert rows(clone)[0][4] == "stopped after 0.0166667 minutes"
    time.sleep(4)
    assert not (clone / "build" / "late").exists()


def test_a_changed_tree_is_refused(clone: Path) -> None:
    (clone / "docs" / "nightly.md").write_text("|---|\nrecords do not count\n")
    run(clone, [])
    (clone / "new").touch()
    with pytest.raises(NightlyError, match="new"):
        run(clone, [])
