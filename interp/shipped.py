"""Folders that come with bitlens in packages of their own, in a clone or where pip put them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def shipped_folder(what: str, name: str, in_clone: Path) -> Path:
    """Returns the folder `name` of a data package.

    Args:
        what: What the folder holds, for the error.
        in_clone: The package's own folder in a clone; its name is the package's.

    Raises FileNotFoundError naming what to install.
    """
    if (_ROOT / in_clone / name).is_dir():
        return _ROOT / in_clone / name
    spec = importlib.util.find_spec(in_clone.name)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / name
    raise FileNotFoundError(
        f"the {what} {name} of smollm2-135m-instruct comes in a package of its own, which is "
        f"not installed: from a clone of bitlens run `pip install ./{in_clone.parent}`"
    )
