"""Builds of bitlens that a worker can import: this one, and a checkout's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROBE = (
    "import bitlens, json; "
    "print(json.dumps([bitlens.__file__, bitlens.__version__, bitlens.numerics_version]))"
)


@dataclass(frozen=True)
class Build:
    """A bitlens that can be imported.

    Attributes:
        path: The directory on Python's path in which `bitlens` lies.
        version: Its `__version__`.
        numerics: Its `numerics_version`: builds that differ in it compute different bits.
    """

    path: Path
    version: str
    numerics: int

    @property
    def environment(self) -> dict[str, str]:
        """Makes a Python process import this build, whatever its working directory."""
        return _environment(self.path)


def this_build() -> Build:
    """Returns the build that is running."""
    return _probed(Path(__file__).parent.parent.parent)


def build_of(checkout: Path) -> Build:
    """Returns the build in a checkout.

    Raises:
        ValueError: There is none, or it cannot be imported.
    """
    path = checkout.absolute() / "build" / "link"
    if not (path / "bitlens" / "benchmarks" / "worker.py").exists():
        raise ValueError(
            f"{checkout} has no build of bitlens: {path}/bitlens is missing; run `make build` there"
        )
    return _probed(path)


def _probed(path: Path) -> Build:
    """Imports it in a process of its own, and checks that it is the one that was meant."""
    command = [sys.executable, "-c", _PROBE]
    environment = {**os.environ, **_environment(path)}
    probe = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if probe.returncode:
        raise ValueError(
            f"{path}/bitlens cannot be imported; run `make build` there:\n{probe.stderr}"
        )
    file, version, numerics = json.loads(probe.stdout)
    if Path(file).parent != path / "bitlens":
        raise ValueError(f"`import bitlens` gives {file}, not {path}/bitlens")
    return Build(path, version, numerics)


def _environment(path: Path) -> dict[str, str]:
    inherited = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": os.pathsep.join([str(path), inherited] if inherited else [str(path)]),
        "PYTHONSAFEPATH": "1",
    }
