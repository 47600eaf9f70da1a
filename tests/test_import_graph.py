"""Arrows point one way: no circle of imports, none upwards, no private name of another package."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import bitlens
import pytest
from support.import_graph import (
    ORDER,
    Import,
    circles,
    imports,
    module_files,
    trespasses,
    upward,
)

ROOT = Path(bitlens.__file__).resolve().parent
FACADE = frozenset({"", "__main__", "sampling"})
TOOLS = frozenset({"setup", "bitlens_pytest"})
"""Modules beside the package."""


def _files(root: Path) -> dict[str, Path]:
    files = module_files(root, ORDER)
    return {module: file for module, file in files.items() if module not in TOOLS}


@functools.cache
def _edges() -> list[Import]:
    return imports(_files(ROOT))


def test_no_module_imports_itself_by_a_circle() -> None:
    assert not circles(_edges())


def test_no_arrow_points_up() -> None:
    assert not upward(_edges(), ORDER, FACADE)


def test_no_package_takes_another_ones_private_names() -> None:
    assert not trespasses(_edges(), _files(ROOT))


def test_no_module_is_imported_by_a_name_it_had_before() -> None:
    """An arrow to a name that no file has would hide a circle."""
    known = {*_files(ROOT), "_core"}
    assert not {edge for edge in _edges() if edge.target not in known}


def test_every_file_of_a_room_is_read() -> None:
    assert {module.split(".")[0] for module in _files(ROOT)} >= {"precision", "model", "audit"}
    found = {(edge.source, edge.target) for edge in _edges()}
    assert ("model.load", "model.transformer") in found
    assert ("cli.loading", "model") in found  # for its types, and inside a function
    assert ("model.ops.kernels", "_core") in found


def _planted(tmp_path: Path, sources: Mapping[str, str]) -> dict[str, Path]:
    """A tree of these files with every room in it."""
    for room in ORDER:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    (tmp_path / "__init__.py").touch()
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    return _files(tmp_path)


TYPE_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import B\n"


@pytest.mark.parametrize(
    "source",
    [
        "from .b import B\n",
        "from . import b\n",
        "from bitlens.model.b import B\n",
        "import bitlens.model.b\n",
        "def f():\n    from .b import B\n",
        TYPE_ONLY,
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, source: str) -> None:
    files = _planted(tmp_path, {"model/a.py": source, "model/b.py": "from .a import A\n"})
    assert circles(imports(files)) == [["model.a", "model.b"]]


def test_a_planted_circle_of_three_is_found(tmp_path: Path) -> None:
    sources = {f"model/{a}.py": f"from .{b} import x\n" for a, b in ("ab", "bc", "ca", "da")}
    assert circles(imports(_planted(tmp_path, sources))) == [["model.a", "model.b", "model.c"]]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("precision/a.py", "from ..model import load\n"),
        ("precision/a.py", "def f():\n    from .. import __version__\n"),
        ("model/a.py", "if TYPE_CHECKING:\n    from ..audit import A\n"),
        ("model/a.py", "from bitlens.interp import x\n"),
        ("audit/a.py", "from ..cli import main\n"),
        ("cli/a.py", "from .. import load\n"),
        ("version.py", "from .model import load\n"),
    ],
)
def test_a_planted_upward_arrow_is_found(tmp_path: Path, file: str, source: str) -> None:
    edges = imports(_planted(tmp_path, {file: source}))
    (found,) = upward(edges, ORDER, FACADE)
    assert found.source == file.removesuffix(".py").replace("/", ".")


def test_arrows_down_and_the_facades_are_none(tmp_path: Path) -> None:
    sources = {
        "__init__.py": "from .model import load\n",
        "sampling.py": "from .model.a import x\n",
        "model/a.py": "from .. import _core, version\nfrom ..precision import ulp\n",
        "cli/a.py": "from ..audit import judge\nfrom ..version import __version__\n",
        "version.py": "from . import _core\n",
    }
    assert not upward(imports(_planted(tmp_path, sources)), ORDER, FACADE)


@pytest.mark.parametrize(
    "source",
    [
        "from .b.c import _hidden\n",
        "from .b import c\nc._hidden()\n",
        "from .b.c import Seen\nSeen._hidden()\n",
        "from .b._c import seen\n",
        "def f():\n    from .b.c import _hidden\n",
    ],
)
def test_a_planted_trespass_is_found(tmp_path: Path, source: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "b").mkdir()
    for name in ("__init__", "c", "_c"):
        (tmp_path / "model" / "b" / f"{name}.py").touch()
    (tmp_path / "model" / "a.py").write_text(source)
    files = module_files(tmp_path, ("model",))
    assert [edge.source for edge in trespasses(imports(files), files)] == ["model.a"]


def test_a_packages_own_private_names_are_its_own(tmp_path: Path) -> None:
    files = _planted(
        tmp_path, {"model/a.py": "from .b import _x\nfrom .. import _core\n_core.f()\n"}
    )
    (tmp_path / "model" / "b.py").write_text("_x = 1\n")
    files = _files(tmp_path)
    assert not trespasses(imports(files), files)
