"""The probes that come with bitlens, by name."""

from __future__ import annotations

from pathlib import Path

from ...names import did_you_mean, near_files
from ..shipped import shipped_folder

SHIPPED = ("smollm2-135m-instruct/harm", "smollm2-135m-instruct/refusal")
_IN_CLONE = Path("data", "smollm2_probes", "bitlens_smollm2_probes")


def find_probe(source: str | Path) -> Path:
    """Returns the folder that a source names: a path, or a probe that bitlens brings, with its
    model's name before it or without.

    Raises FileNotFoundError naming what exists, or what to install.
    """
    path = Path(source)
    if path.exists():
        return path
    for known in SHIPPED:
        if str(source) in (known, Path(known).name):
            return shipped_folder("probe", Path(known).name, _IN_CLONE)
    names = ", ".join(SHIPPED)
    near = did_you_mean(str(source), [*SHIPPED, *(Path(name).name for name in SHIPPED)])
    raise FileNotFoundError(
        f"{source}: no such folder{near or near_files(path)}; expected a probe's folder, or {names}"
    )
