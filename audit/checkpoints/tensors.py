"""Two stored tensors: the same values, one side rounded, or others.

Tensor names: a, b hold the same rows of the two tensors, fp32 [rows, k].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ...model.config import ModelConfig
from ...model.weights.checkpoint import Checkpoint
from .result import TensorDifference

FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What a tensor may have been rounded to; the first that explains all of it is named."""

_FACTOR_ERROR = 2.0**-8
"""What rounding to bf16 leaves of an exact multiple, relative."""

_HEAD, _EMBEDDING = "unembed.weight", "embed.weight"


def compare_tensors(
    a: Checkpoint, b: Checkpoint, stored_as: str | None
) -> Iterator[TensorDifference | None]:
    """Yields one for every tensor of either, None where the values are the same.

    A tied head is the embedding. `stored_as` is the format that B's policy keeps weights in, where
    it rounds them: A's values rounded so count as the same.
    """
    names_a, names_b = dict.fromkeys(a.names()), dict.fromkeys(b.names())
    for name in {**names_a, **names_b}:
        mine = _named(name, names_a, a.config)
        theirs = _named(name, names_b, b.config)
        if mine is None or theirs is None:
            yield _lone(name, a, b)
            continue
        shape_a, shape_b = a.reader.shapes[mine], b.reader.shapes[theirs]
        if tuple(shape_a) != tuple(shape_b):
            yield TensorDifference(name, "differs", tuple(shape_a), tuple(shape_b))
            continue
        if not all(_equal(*rows) for rows in _rows(name, a, mine, b, theirs)):
            yield _measured(name, tuple(shape_a), _rows(name, a, mine, b, theirs), stored_as)
        else:
            yield None


def _rows(
    name: str, a: Checkpoint, mine: str, b: Checkpoint, theirs: str
) -> Iterator[tuple[_Rows, _Rows]]:
    """Both sides of one tensor, some rows at a time."""
    chunks = a.reader.read(mine).chunks(), b.reader.read(theirs).chunks()
    for (_, rows_a), (_, rows_b) in zip(*chunks, strict=True):
        yield _Rows(rows_a, *_offsets(name, a)), _Rows(rows_b, *_offsets(name, b))


def _equal(rows_a: _Rows, rows_b: _Rows) -> bool:
    return torch.equal(rows_a.values().view(torch.int32), rows_b.values().view(torch.int32))


def _measured(
    name: str,
    shape: tuple[int, ...],
    rows: Iterator[tuple[_Rows, _Rows]],
    stored_as: str | None,
) -> TensorDifference | None:
    pair = _Pair(name, shape, stored_as)
    for rows_a, rows_b in rows:
        pair.add(rows_a, rows_b)
    return pair.difference()


def _named(name: str, names: dict[str, None], config: ModelConfig) -> str | None:
    if name not in names and name == _HEAD and config.tie_embeddings:
        return _EMBEDDING
    return name if name in names else None


def _lone(name: str, a: Checkpoint, b: Checkpoint) -> TensorDifference:
    if name in a:
        return TensorDifference(name, "only in A", shape_a=tuple(a.reader.shapes[name]))
    return TensorDifference(name, "only in B", shape_b=tuple(b.reader.shapes[name]))


def _offsets(name: str, checkpoint: Checkpoint) -> tuple[float, float]:
    """Returns what is added to a norm's weights, and what the file has added already."""
    owner = name.rpartition(".")[0].rpartition(".")[2]
    if not (owner.startswith("ln") or owner.endswith("_norm")):
        return 0.0, 0.0
    return checkpoint.config.norm_offset, checkpoint.config.folded_norm_offset


@dataclass(frozen=True)
class _Rows:
    """Rows as stored. What a norm multiplies by is w in some files, 1 + w in others."""

    stored: torch.Tensor
    offset: float
    folded: float

    def values(self) -> torch.Tensor:
        """The values that are computed with."""
        return self.stored + self.offset if self.offset else self.stored

    def rounded(self, dtype: torch.dtype) -> torch.Tensor:
        """The values of a model whose w is rounded to `dtype`."""
        w = self.stored - self.folded if self.folded else self.stored
        w = w.to(dtype).float()
        offset = self.offset + self.folded
        return w + offset if offset else w


class _Pair:
    """Counts over the rows of one tensor, some at a time."""

    def __init__(self, name: str, shape: tuple[int, ...], stored_as: str | None) -> None:
        self._name, self._shape, self._stored_as = name, shape, stored_as
        self._values = 0
        self._rounds = dict.fromkeys(((f, side) for f in FORMATS for side in "ba"), True)
        self._aa = self._ab = self._bb = self._gap = 0.0

    def add(self, rows_a: _Rows, rows_b: _Rows) -> None:
        """Counts the values that differ, and drops the roundings that do not explain them."""
        a, b = rows_a.values(), rows_b.values()
        n = int((a.view(torch.int32) != b.view(torch.int32)).sum())
        self._values += n
        wide_a, wide_b = a.double(), b.double()
        self._aa += float((wide_a * wide_a).sum())
        self._bb += float((wide_b * wide_b).sum())
        self._ab += float((wide_a * wide_b).sum())
        self._gap += float(((wide_b - wide_a) ** 2).sum()) if n else 0.0
        for (format_, side), holds in self._rounds.items():
            if holds:
                fine, coarse = (rows_a, b) if side == "b" else (rows_b, a)
                self._rounds[format_, side] = torch.equal(fine.rounded(FORMATS[format_]), coarse)

    def difference(self) -> TensorDifference | None:
        """None for values that B's policy rounded."""
        error = math.sqrt(self._gap / self._aa) if self._aa else math.inf
        found = [key for key, holds in self._rounds.items() if holds]
        if (self._stored_as, "b") in found:
            return None
        shapes = (self._shape, self._shape)
        if found:
            return TensorDifference(
                self._name, "rounded", *shapes, found[0][0], self._values, error
            )
        return TensorDifference(
            self._name, "differs", *shapes, "", self._values, error, self._factor()
        )

    def _factor(self) -> float | None:
        """The least-squares multiple of A's values, where its residual is no more than rounding."""
        if not self._aa or not self._bb:
            return None
        factor = self._ab / self._aa
        residual = math.sqrt(max(0.0, 1 - self._ab * self._ab / (self._aa * self._bb)))
        return factor if residual <= _FACTOR_ERROR < abs(factor - 1) else None
