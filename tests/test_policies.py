"""policies.py is the only file of the package that knows a policy by its name."""

from __future__ import annotations

import ast
from pathlib import Path

import bitlens
from support.import_graph import ORDER, module_files

ROOT = Path(bitlens.__file__).resolve().parent
NAMES = ("hf_bf16", "bf16_weights")
"""Those that are not names of formats, too."""


def _named(tree: ast.AST) -> set[str]:
    """The policies that code names, as a string or an attribute; docstrings may."""
    texts = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    spelled = [
        str(node.value) if isinstance(node, ast.Constant) else node.attr
        for node in ast.walk(tree)
        if (isinstance(node, ast.Constant) and id(node) not in texts)
        or isinstance(node, ast.Attribute)
    ]
    return {name for name in NAMES for text in spelled if name in text}


def test_policies_are_named_in_one_file() -> None:
    files = module_files(ROOT, ORDER)
    knowing = {module for module, file in files.items() if _named(ast.parse(file.read_text()))}
    assert knowing == {"policies"}


def test_a_name_is_found_in_code_and_not_in_a_docstring() -> None:
    assert _named(ast.parse("if dtype == 'hf_bf16': f(PolicyName.bf16_weights)")) == set(NAMES)
    assert _named(ast.parse("f'{x}: not hf_bf16'")) == {"hf_bf16"}
    assert not _named(ast.parse("def f():\n    '''Not for hf_bf16.'''"))
