"""What docs/precision.md shows runs, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bitlens
from bitlens.precision.formats import FORMATS
from bitlens.precision.operations import OPERATIONS

PAGE = Path(bitlens.__file__).resolve().parent / "docs" / "precision.md"


def test_the_examples(smollm2_path: Path) -> None:
    """In order and in one namespace, as a reader would paste them."""
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)


def test_it_names_every_operation_format_and_option() -> None:
    import typer
    from bitlens.cli.audit import audit

    text = PAGE.read_text("utf-8")
    for name in (*OPERATIONS, *FORMATS):
        assert name in text
    app = typer.Typer()
    app.command()(audit)
    command: Any = typer.main.get_command(app)
    known = {option for parameter in command.params for option in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text.split("## `bitlens audit`")[1]))
    assert named <= known


def test_links_point_at_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / target).exists()
