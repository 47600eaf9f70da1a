"""What bitlens adds to an environment: import time and the size of its wheel."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..report import Row, at_most, spread_row
from . import Options, command

_ROOT = Path(__file__).parent.parent.parent
_CLOCK = "import torch, time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
_IMPORTS = {
    "import bitlens": "import bitlens",
    "import bitlens, and all that load() needs": "import bitlens; bitlens.load",
}


def rows(options: Options) -> Iterator[Row]:
    for what, statement in _IMPORTS.items():
        yield spread_row(
            [_import_seconds(statement) for _ in range(options.rounds)],
            suite="light",
            what=f"{what}, after import torch",
            unit="s",
            target=at_most(0.3),
            command=command("light"),
        )
    if not options.quick:
        size = _wheel_bytes() / 1e6
        yield Row(
            suite="light",
            what="the wheel",
            value=size,
            low=size,
            high=size,
            unit="MB",
            target=at_most(10),
            command=command("light"),
        )


def _import_seconds(statement: str) -> float:
    code = _CLOCK.format(statement)
    return float(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    )


def _wheel_bytes() -> int:
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
        subprocess.run([*build, "-w", folder, str(_ROOT)], check=True)
        (wheel,) = Path(folder).glob("bitlens-*.whl")
        return wheel.stat().st_size
