"""`python tests/support/nightly.py [STAGE ...]`: the nightly in stages that can be resumed.

A stage that passed on a commit leaves build/nightly/COMMIT/STAGE.stamp and is not run again there.
Every run appends a row to docs/nightly.md. `make nightly` prepares the environment and runs all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT = 40.0
"""Minutes after which a stage is stopped, and has failed."""

PART = 12
"""Test files of a folder that make a stage of their own."""

TARGETS = (
    "fuzz",
    "exhaustive",
    "sanitize",
    "arm-check",
    "clang-check",
    "docs",
    "packages",
    "first-hour",
    "scanners",
)
"""Targets of the Makefile that are stages."""

BY_TARGETS = (
    "tests/fuzz/",
    "tests/packages/",
    "tests/csrc/test_exhaustive.py",
    "tests/alignment/test_scanners.py",
)
"""Tests that those targets run."""

RECORD = "docs/nightly.md"


class NightlyError(Exception):
    """The nightly cannot begin."""


@dataclass(frozen=True)
class Stage:
    """A name, for its stamp, and the command that passes or fails."""

    name: str
    command: tuple[str, ...]


def stages(root: Path) -> list[Stage]:
    """Returns all stages: every test file is in exactly one, or run by one of the targets."""
    folders: dict[str, list[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        file = path.relative_to(root).as_posix()
        if not file.startswith(BY_TARGETS):
            folders.setdefault("-".join(file.split("/")[:2][: file.count("/")]), []).append(file)
    pytest = (sys.executable, "-m", "pytest", "-q", "--nightly")
    found = []
    for name, files in folders.items():
        parts = [files[start : start + PART] for start in range(0, len(files), PART)]
        for i, part in enumerate(parts, 1):
            numbered = f"{name}-{i}of{len(parts)}" if len(parts) > 1 else name
            found.append(Stage(numbered, (*pytest, *part)))
    make = os.environ.get("MAKE", "make")
    return found + [Stage(target, (make, target)) for target in TARGETS]


def run(root: Path, wanted: Sequence[Stage], limit: float = LIMIT) -> list[str]:
    """Runs the stages without a stamp for this commit; returns the names of those that failed.

    Raises:
        NightlyError: The tree differs from its commit, so a stamp would name the wrong one.
    """
    commit = _git(root, "rev-parse", "HEAD")
    if changed := _git(root, "status", "--porcelain", "--", ".", f":!{RECORD}"):
        raise NightlyError(f"commit or stash first, stages are stamped by commit:\n{changed}")
    folder = root / "build" / "nightly" / commit
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for stage in wanted:
        stamp = folder / f"{stage.name}.stamp"
        if stamp.exists():
            print(f"{stage.name}: passed before", flush=True)
            continue
        minutes, outcome = _timed(stage, root, folder / f"{stage.name}.log", limit)
        print(f"{stage.name}: {outcome}, {minutes:.1f} minutes", flush=True)
        _record(root, (commit[:12], _cpu(), stage.name, f"{minutes:.1f}", outcome))
        if outcome == "passed":
            stamp.touch()
        else:
            failed.append(stage.name)
    return failed


def _timed(stage: Stage, root: Path, log: Path, limit: float) -> tuple[float, str]:
    """Minutes of a stage, and "passed", "failed" or "stopped"; what it printed goes to `log`."""
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            stage.command,
            cwd=root,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            outcome = "failed" if process.wait(limit * 60) else "passed"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {limit:g} minutes"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return (time.monotonic() - started) / 60, outcome


def _record(root: Path, row: tuple[str, ...]) -> None:
    with (root / RECORD).open("a") as record:
        record.write(f"| {' | '.join(row)} |\n")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _git(root: Path, *words: str) -> str:
    command = ["git", *words]
    return subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def main(words: Sequence[str] | None = None) -> int:
    """Runs the named stages, or all; 1 if one failed."""
    root = Path(__file__).resolve().parent.parent.parent
    known = {stage.name: stage for stage in stages(root)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(known)}")
    names = parser.parse_args(words).stages or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no stage {', '.join(unknown)}; choose from {', '.join(known)}")
    try:
        failed = run(root, [known[name] for name in names])
    except NightlyError as error:
        parser.error(str(error))
    if failed:
        print(f"failed: {', '.join(failed)}; build/nightly has their output")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
