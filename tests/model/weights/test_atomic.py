"""Files appear whole, and what a killed process left beside them goes with the next write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bitlens.model.weights.atomic import write_atomically, write_json

KILLED = """
import os, signal, sys
from pathlib import Path
from bitlens.model.weights.atomic import write_atomically
with write_atomically(Path(sys.argv[1])) as scratch:
    scratch.write_text("half")
    scratch.with_name(".tmp123456").write_text("as save_file writes first")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(path)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".value.json.")
    running = tmp_path / f".value.json.{os.getppid()}"  # somebody writes at this moment
    others = tmp_path / ".value.json.backup"
    for kept in (running, others):
        kept.mkdir()
    write_json(path, 1)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, running.name, others.name}


def test_a_block_that_raises_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, 1)

    def fails() -> None:
        with write_atomically(path) as scratch:
            scratch.write_text("other")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "1\n"
