"""The `bitlens` command, one group of commands a file."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command. `--version` answers before anything is imported that draws."""
    if sys.argv[1:] == ["--version"]:
        from .._core import numerics_version
        from ..version import __version__

        print(f"bitlens {__version__}, numerics {numerics_version}")
        raise SystemExit(0)
    from .command import main as run

    run()


__all__ = ["main"]
