"""Import paths that moved: an old name gives the very module of the new one."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from bitlens.moved_modules import MOVED, MovedModuleFinder, new_name


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_new_module(old: str) -> None:
    new = importlib.import_module(f"bitlens.{MOVED[old]}")
    assert importlib.import_module(f"bitlens.{old}") is new
    assert new.__name__ == f"bitlens.{MOVED[old]}"
    assert new.__spec__ is not None
    assert new.__spec__.name == new.__name__


def test_no_name_of_the_table_is_a_module_again() -> None:
    targets = {f"bitlens.{new}" for new in MOVED.values()}
    assert not targets & {f"bitlens.{old}" for old in MOVED}
    assert all(new_name(target) is None for target in targets)


def test_what_a_moved_package_holds_moves_along() -> None:
    """Found by the new package's own path, it would be a second module of the same file."""
    code = (
        "import bitlens.model.audit.page.charts as old, bitlens.audit.page.charts as new, sys;"
        "assert old is new is sys.modules['bitlens.model.audit.page.charts'];"
        "from bitlens.model.audit.result import AuditResult as Old;"
        "from bitlens.audit import AuditResult as New;"
        "assert Old is New"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_modules_that_became_folders_keep_their_names() -> None:
    from bitlens.model.hooks import HookPoint, hook_names, select_names
    from bitlens.model.ops import Ops
    from bitlens.model.rope import RopeTables
    from bitlens.model.text import TextInterface

    for name in (HookPoint, hook_names, select_names, Ops, RopeTables, TextInterface):
        assert name.__module__.startswith("bitlens.model.")


@pytest.mark.parametrize("name", ["bitlens.model.never_was", "bitlens.model.audit.never_was"])
def test_a_name_that_never_was_is_not_found(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_the_finder_answers_for_old_names_alone() -> None:
    finder = MovedModuleFinder()
    for name in ("bitlens", "bitlens.model", "bitlens.model.ops", "model.verify", "torch"):
        assert finder.find_spec(name, None) is None
    assert finder.find_spec("bitlens.model.verify", None) is not None
