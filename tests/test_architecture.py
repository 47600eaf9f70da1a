"""docs/architecture.md names what there is, and the rooms stay small enough to be read."""

from __future__ import annotations

import re
from pathlib import Path

import bitlens
from support.import_graph import ORDER

ROOT = Path(bitlens.__file__).resolve().parent
PAGE = ROOT / "docs" / "architecture.md"


def _named() -> set[str]:
    """Paths that the page names: in code spans, and in the picture of the rooms."""
    page = PAGE.read_text()
    spans = re.findall(r"`([\w./]+)`", page)
    picture = re.findall(r"^ +([a-z]+/)  ", page, re.MULTILINE)
    prose = re.findall(r"(?<![\w/`])((?:tests|docs|csrc)/[\w/]+\.\w+)", page)
    return {span for span in spans if "/" in span or span.endswith(".py")} | {*picture, *prose}


def _rooms() -> set[str]:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    return found - {"benchmarks"} | {"csrc"}


def test_every_path_it_names_exists() -> None:
    named = _named()
    assert len(named) > 40
    assert not {path for path in named if not (ROOT / path).exists()}


def test_every_room_is_named() -> None:
    named = _named()
    assert _rooms() >= {"cli", "audit", "interp", "model", "precision", "csrc"}
    assert not {room for room in _rooms() if f"{room}/" not in named}
    folders = {path.parent.name for path in (ROOT / "model").glob("*/__init__.py")}
    assert not {folder for folder in folders if f"model/{folder}/" not in named}


def test_every_file_loose_in_model_is_named_and_they_are_few() -> None:
    loose = {f"model/{path.name}" for path in (ROOT / "model").glob("*.py")}
    assert len(loose) <= 15
    assert loose - {"model/__init__.py"} <= _named()


def test_the_rooms_stand_in_the_order_of_the_import_graph() -> None:
    picture = [room.rstrip("/") for room in re.findall(r"^ +([a-z]+/)  ", PAGE.read_text(), re.M)]
    expected = [room for room in reversed(ORDER) if (ROOT / room).exists()]
    assert picture == [*expected, "csrc"]


def test_no_source_file_is_longer_than_a_sitting() -> None:
    rooms = _rooms() - {"csrc"}
    files = [*ROOT.glob("*.py"), *(file for room in rooms for file in (ROOT / room).rglob("*.py"))]
    long = {file.name for file in files if len(file.read_text("utf-8").splitlines()) > 450}
    assert not long
