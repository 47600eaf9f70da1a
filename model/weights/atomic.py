"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a path in a folder beside `path` to write to, which replaces it once the block has
    ended well.

    The content is on the disk before the name is. Where the block raises, or the disk is full,
    `path` is as it was and nothing else is left. What a process that was killed has left here is
    removed by the next one that writes.
    """
    # A folder, as save_file has scratch files of its own beside the one that it writes.
    folder = path.with_name(f".{path.name}.{os.getpid()}")
    _remove_left_over(path)
    folder.mkdir(exist_ok=True)
    try:
        scratch = folder / path.name
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over(path: Path) -> None:
    """Removes scratch folders of this path whose process is no more."""
    for other in path.parent.glob(f".{glob.escape(path.name)}.*"):
        pid = other.name.rpartition(".")[2]
        if pid.isdecimal() and not _is_running(int(pid)):
            shutil.rmtree(other, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    with write_atomically(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file atomically. Raises OSError where it does not fit on the disk."""
    with write_atomically(path) as scratch:
        scratch.touch()
        mode = scratch.stat().st_mode
        try:
            save_file(tensors, scratch, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error
        scratch.chmod(mode)  # save_file leaves it readable by its owner alone
