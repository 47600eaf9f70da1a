"""Docstrings of the package open with what is returned or done, not with a relative clause."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import bitlens
from support.import_graph import ORDER, module_files

ROOT = Path(bitlens.__file__).resolve().parent
RELATIVE = frozenset(
    [
        "As",
        "How",
        "Of",
        "That",
        "Those",
        "What",
        "Whatever",
        "When",
        "Where",
        "Which",
        "Who",
        "Whose",
    ]
)
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _public(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """The docstrings of a module and of what is public in it, by dotted name."""
    if not isinstance(node, Documented):
        return
    yield name, ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef | ast.Module):
        for child in node.body:
            if isinstance(child, Documented) and not getattr(child, "name", "_").startswith("_"):
                yield from _public(child, f"{name}.{getattr(child, 'name', '')}")


def _relative(source: str, module: str) -> list[str]:
    found = _public(ast.parse(source), module)
    return [name for name, text in found if RELATIVE & set(text.split(maxsplit=1)[:1])]


def test_docstrings_open_with_a_statement() -> None:
    files = module_files(ROOT, ORDER)
    assert len(files) > 250
    found = [name for module, file in files.items() for name in _relative(file.read_text(), module)]
    assert not found, 'say it in a sentence: "Returns ...", "Raises ...", "The ..."'


def test_a_relative_clause_is_found() -> None:
    source = '"""What it is."""\nclass A:\n    """One."""\n    def f(self):\n        """Of it."""'
    assert _relative(source, "m") == ["m", "m.A.f"]
    assert not _relative('"""Whatsoever."""\ndef _f():\n    """As g."""', "m")
