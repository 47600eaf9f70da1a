"""Names of models and dictionaries on pages, which mean the same on other machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...model.sources.alias import ALIASES
from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary
from ..dictionaries.load import SHIPPED


def shown_name(model: HookedTransformer) -> str:
    """Returns a model's alias, its name on the hub, or the last part of its path."""
    path = Path(model.name)
    for alias, file in ALIASES.items():
        if path.name == file.file_name:
            return alias
    return path.name if path.is_absolute() else model.name


def setup_code(model: HookedTransformer, dictionaries: Mapping[str, Dictionary]) -> str:
    """Returns Python that makes `model` and `dictionaries`, as a page shows it."""
    lines = [
        "import bitlens",
        "from bitlens.interp import load_dictionary",
        "",
        f'model = bitlens.load({shown_name(model)!r}, dtype="{model.ops.policy.name}")',
        "dictionaries = [",
        *(f"    load_dictionary({_source(d)!r}, model=model)," for d in dictionaries.values()),
        "]",
    ]
    return "\n".join(lines)


def _source(dictionary: Dictionary) -> str:
    folder = dictionary.folder
    if folder is None:
        return f"... of {dictionary.cfg.hook_name} ..."
    shipped = [alias for alias in SHIPPED if alias.rpartition("/")[2] == folder.name]
    return shipped[0] if shipped else folder.name
