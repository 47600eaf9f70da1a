"""Activations to keep from a pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

PosSlice = int | slice | tuple[int | None, ...] | list[int] | None


def select_columns(pos_slice: PosSlice, n_columns: int) -> list[int] | None:
    """The columns a position slice keeps; None keeps all.

    An int keeps one column (and the axis), a tuple is the arguments of a slice, a list is indices.
    Raises IndexError for a column there is not.
    """
    if pos_slice is None:
        return None
    columns = list(range(n_columns))
    if isinstance(pos_slice, tuple):
        pos_slice = slice(*pos_slice)
    if isinstance(pos_slice, slice):
        return columns[pos_slice]
    indices = [pos_slice] if isinstance(pos_slice, int) else pos_slice
    for index in indices:
        if not -n_columns <= index < n_columns:
            raise IndexError(f"pos_slice: position {index} of {n_columns}")
    return [columns[index] for index in indices]


@dataclass
class Captures:
    """Activations to keep from a pass: which, at which positions, and where they go."""

    names: frozenset[str] = frozenset()
    pos_slice: PosSlice = None
    found: dict[str, torch.Tensor] = field(default_factory=dict)
