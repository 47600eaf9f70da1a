"""Holds a source's list of tensors against what the config needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ..config import ModelConfig
from ..weights.architectures import tensor_shapes
from ..weights.checkpoint import CheckpointError

_SHOWN = 8
_LONGEST = 120


def match_tensors(
    file: str,
    config: ModelConfig,
    found: Mapping[str, tuple[int, ...]],
    source_name: Callable[[str, ModelConfig], str],
    ignored: Collection[str] = (),
) -> dict[str, str]:
    """Canonical name -> the source's name, for every tensor of the model.

    Args:
        found: The source's tensors and shapes, under its own names.
        ignored: Source names that may be there and mean nothing.

    Raises:
        CheckpointError: tensors are missing, of another shape, or there for no reason bitlens
            knows; names them all (long lists shortened).
    """
    if config.n_layers > len(found):
        raise CheckpointError(f"{file}: {len(found)} tensors cannot make {config.n_layers} layers")
    needed = tensor_shapes(config)
    names = {name: source_name(name, config) for name in needed}
    missing = [source for source in names.values() if source not in found]
    wrong = [
        f"{source} has shape {list(found[source])}, expected {list(needed[name])}"
        for name, source in names.items()
        if source in found and tuple(found[source]) != needed[name]
    ]
    extra = sorted(map(_printable, set(found) - set(names.values()) - set(ignored)))
    problems = [
        f"{problem}: {_shortened(items)}"
        for problem, items in (
            ("missing tensors", missing),
            ("wrong shapes", wrong),
            (f"tensors a {config.architecture} model has no use for", extra),
        )
        if items
    ]
    if problems:
        raise CheckpointError(f"{file}: " + "; ".join(problems))
    return names


def _shortened(items: list[str]) -> str:
    rest = len(items) - _SHOWN
    shown = ", ".join(item[:_LONGEST] for item in items[:_SHOWN])
    return shown + (f" and {rest} more" if rest > 0 else "")


def _printable(name: str) -> str:
    """A name out of the file, so that it cannot write on a terminal what it likes."""
    return name if name.isprintable() else repr(name)
