"""Which module of a tree imports which, read from its source: type-only and function-level imports
count like any other."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ORDER = ("precision", "model", "interp", "audit", "alignment", "cli")
"""The rooms from below; the core and what stands in the root for everyone lie below all of them."""


@dataclass(frozen=True)
class Import:
    """One name that a module takes from another.

    Attributes:
        source: The module that imports, without the root's name.
        target: The module that it imports from; "" is the root.
        name: What it takes; "" for the module itself.
        line: Where it does.
    """

    source: str
    target: str
    name: str
    line: int


def module_files(root: Path, rooms: tuple[str, ...]) -> dict[str, Path]:
    """The files of the root and of its rooms by module name; "" is the root's own."""
    files = [*root.glob("*.py"), *(file for room in rooms for file in (root / room).rglob("*.py"))]
    return {_module(file.relative_to(root)): file for file in files}


def _module(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(files: Mapping[str, Path], root: str = "bitlens") -> list[Import]:
    """Every import of one of these modules by another, and every use of a private name of one."""
    found = []
    for module, file in files.items():
        tree = ast.parse(file.read_text("utf-8"))
        package = module if file.stem == "__init__" else module.rpartition(".")[0]
        bound: dict[str, str] = {}
        for statement in ast.walk(tree):
            for target, name, alias in _targets(statement, package, files, root):
                found.append(Import(module, target, name, statement.lineno))  # type: ignore[attr-defined]
                bound[alias] = f"{target}.{name}".strip(".")
        for use in ast.walk(tree):
            if isinstance(use, ast.Attribute) and isinstance(use.value, ast.Name):
                owner = bound.get(use.value.id)
                if owner is not None and _is_private(use.attr):
                    at = owner if owner in files else owner.rpartition(".")[0]
                    found.append(Import(module, at, use.attr, use.lineno))
    return found


def _targets(
    statement: ast.AST, package: str, files: Mapping[str, Path], root: str
) -> Iterator[tuple[str, str, str]]:
    """(module, name, what it is bound to) of an import statement; nothing of other packages."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            top, _, rest = alias.name.partition(".")
            if top == root:
                yield rest, "", alias.asname or root
    if not isinstance(statement, ast.ImportFrom):
        return
    if statement.level:
        parts = package.split(".") if package else []
        kept = parts[: len(parts) - statement.level + 1]
        base = ".".join([*kept, *filter(None, [statement.module])])
    else:
        top, _, base = (statement.module or "").partition(".")
        if top != root:
            return
    for alias in statement.names:
        inner = f"{base}.{alias.name}".strip(".")
        bound = alias.asname or alias.name
        if inner in files or inner == "_core":
            yield inner, "", bound
        else:
            yield base, alias.name, bound


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def circles(edges: list[Import]) -> list[list[str]]:
    """Groups of modules that import one another, each sorted (Tarjan 1972)."""
    after: dict[str, set[str]] = {}
    for edge in edges:
        after.setdefault(edge.source, set()).add(edge.target)
        after.setdefault(edge.target, set())
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(after[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1 or module in after[module]:
                groups.append(sorted(group))

    for module in sorted(after):
        if module not in index:
            visit(module)
    return groups


def upward(edges: list[Import], order: tuple[str, ...], facade: frozenset[str]) -> list[Import]:
    """Imports of a room by one that lies below it, and of the facade by anything else.

    `order` names rooms from below; modules of the root that are no facade lie below all of them.
    """
    rank = {room: i for i, room in enumerate(order, 1)}

    def height(module: str) -> int:
        return len(order) + 1 if module in facade else rank.get(module.split(".")[0], 0)

    return [
        edge
        for edge in edges
        if height(edge.source) < height(edge.target) and edge.source not in facade
    ]


def trespasses(edges: list[Import], files: Mapping[str, Path]) -> list[Import]:
    """Private names, of modules or in them, that a package takes from another."""

    def package(module: str) -> str:
        file = files.get(module)
        is_package = file is not None and file.stem == "__init__"
        return module if is_package else module.rpartition(".")[0]

    found = []
    for edge in edges:
        private = _is_private(edge.name) or any(map(_is_private, edge.target.split(".")))
        if edge.target != "_core" and private and package(edge.source) != package(edge.target):
            found.append(edge)
    return found
