"""Files that a command writes and reads, checked before minutes of work and not after."""

from __future__ import annotations

from pathlib import Path


def check_output(output: Path) -> None:
    """Raises OSError naming the option where the file cannot be written."""
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output {output}: there is no directory {output.parent}")
    if output.is_dir():
        raise IsADirectoryError(f"--output {output}: this is a directory, name a file")
