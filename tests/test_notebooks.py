"""The notebooks of the documentation run from the first cell to the last."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import bitlens
import pytest

FOLDER = Path(bitlens.__file__).resolve().parent / "docs" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def _cells(name: str, kind: str) -> list[str]:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def _run(code: str, namespace: dict[str, Any]) -> Any:
    """Returns what a notebook would show of a cell: the value of its last line, if it has one."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(name: str, smollm2_path: Path) -> None:
    namespace: dict[str, Any] = {}
    shown = [_run(code, namespace) for code in _cells(name, "code")]
    drawn = [value for value in shown if value is not None]
    assert len(drawn) >= 3
    assert all("<" in value._repr_html_() for value in drawn)


def test_none_is_missing() -> None:
    assert set(NOTEBOOKS) >= {"steer", "find_a_head", "where_runs_part", "watch_a_model"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_kept_without_outputs(name: str) -> None:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    assert _cells(name, "markdown")[0].startswith("# ")
