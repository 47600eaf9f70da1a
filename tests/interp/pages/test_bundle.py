"""The script and the style that pages carry are what frontend/ gives."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import bitlens
import pytest

PAGES = Path(bitlens.__file__).resolve().parent / "interp" / "pages"


def test_the_bundle_is_small_and_locked() -> None:
    size = sum((PAGES / name).stat().st_size for name in ("page.js", "page.css"))
    assert size < 150_000
    lock = json.loads((PAGES / "frontend" / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert all("integrity" in each for each in packages.values())
    assert not [name for name, each in packages.items() if "resolved" in each]


@pytest.mark.nightly
def test_rebuilding_gives_the_same_bytes(tmp_path: Path) -> None:
    """Needs Node and the npm registry; changing the pages does, too, using them does not."""
    assert shutil.which("npm"), "rebuilding the pages needs Node: apt-get install nodejs npm"
    copy = tmp_path / "pages"
    shutil.copytree(PAGES, copy, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    for command in (["npm", "ci", "--ignore-scripts"], ["npm", "run", "check"]):
        subprocess.run(command, cwd=copy / "frontend", check=True, capture_output=True)
    # Control: other sources give other bytes.
    source = copy / "frontend" / "src" / "style.css"
    source.write_text(source.read_text() + ".bitlens .other { color: red }")
    changed = subprocess.run(["npm", "run", "check"], cwd=copy / "frontend", capture_output=True)
    assert changed.returncode != 0
