"""Tensors that may reach a kernel say their dtype and device: torch's defaults are the user's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import bitlens
import pytest

ROOT = Path(bitlens.__file__).parent
FLOATS = {"zeros", "ones", "empty", "full", "rand", "randn"}
MAKERS = FLOATS | {"arange", "tensor", "randperm", "randint", "eye", "linspace"}


def unsaid(source: str) -> Iterator[tuple[int, str]]:
    """Line and call of every tensor made with a default dtype or device."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, where = node.func.attr, node.func.value
        if name not in MAKERS or not isinstance(where, ast.Name) or where.id != "torch":
            continue
        said = {keyword.arg for keyword in node.keywords}
        if "device" not in said or (name in FLOATS and "dtype" not in said):
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("package", ["model", "interp"])
def test_no_tensor_has_a_default_dtype_or_device(package: str) -> None:
    files = [p for p in (ROOT / package).rglob("*.py") if "interop" not in p.parts]
    assert len(files) > 20
    found = [
        f"{path.relative_to(ROOT)}:{line}: {call}"
        for path in files
        for line, call in unsaid(path.read_text())
    ]
    assert not found, "\n".join(found)


def test_control_a_default_is_found() -> None:
    assert list(unsaid("x = torch.empty(3, 4)")) == [(1, "torch.empty(3, 4)")]
    assert list(unsaid("x = torch.empty(3, device='cpu')"))
    assert not list(unsaid("x = torch.arange(3, device='cpu')"))
