"""Weights as a file holds them: named, read one at a time, never half checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import torch

from ..config import ModelConfig
from .ggml_blocks import dequantize_blocks

if TYPE_CHECKING:
    from ..text.tokenizer import Tokenizer


class CheckpointError(ValueError):
    """A checkpoint that is damaged, incomplete or not supported. Names the file and the culprit."""


class Format(IntEnum):
    """The format of a stored matrix. Up to Q4_1 the numbers are `bitlens._core`'s, whose kernels
    read these; the others, further block formats of GGUF, are widened when they are packed.
    """

    F32 = 0
    BF16 = 1
    F16 = 2
    Q8_0 = 3
    Q4_0 = 4
    Q4_1 = 5
    Q5_0 = 6
    Q5_1 = 7
    Q2_K = 8
    Q3_K = 9
    Q4_K = 10
    Q5_K = 11
    Q6_K = 12
    IQ1_S = 13
    IQ1_M = 14
    IQ2_XXS = 15
    IQ2_XS = 16
    IQ2_S = 17
    IQ3_XXS = 18
    IQ3_S = 19
    IQ4_NL = 20
    IQ4_XS = 21
    TQ1_0 = 22
    TQ2_0 = 23

    @property
    def in_kernels(self) -> bool:
        """Whether kernels read it as it is."""
        return self <= Format.Q4_1


DENSE_DTYPES = {
    Format.F32: torch.float32,
    Format.BF16: torch.bfloat16,
    Format.F16: torch.float16,
}


@dataclass(frozen=True)
class BlockLayout:
    """The blocks that a quantised row is cut into.

    Attributes:
        weights: Consecutive elements of the row in a block.
        bytes: That it takes in the file.
        scales: Where in it fp16 numbers stand that scale or shift all or some of its weights; with
            these finite all weights are. Empty where none stands whole.
    """

    weights: int
    bytes: int
    scales: tuple[int, ...]


# Each as in ggml-common.h (https://github.com/ggml-org/ggml), block_q8_0 and so on.
BLOCKS: Mapping[Format, BlockLayout] = {
    Format.Q8_0: BlockLayout(32, 34, (0,)),
    Format.Q4_0: BlockLayout(32, 18, (0,)),
    Format.Q4_1: BlockLayout(32, 20, (0, 2)),
    Format.Q5_0: BlockLayout(32, 22, (0,)),
    Format.Q5_1: BlockLayout(32, 24, (0, 2)),
    Format.Q2_K: BlockLayout(256, 84, (80, 82)),
    Format.Q3_K: BlockLayout(256, 110, (108,)),
    Format.Q4_K: BlockLayout(256, 144, (0, 2)),
    Format.Q5_K: BlockLayout(256, 176, (0, 2)),
    Format.Q6_K: BlockLayout(256, 210, (208,)),
    Format.IQ1_S: BlockLayout(256, 50, (0,)),
    Format.IQ1_M: BlockLayout(256, 56, ()),
    Format.IQ2_XXS: BlockLayout(256, 66, (0,)),
    Format.IQ2_XS: BlockLayout(256, 74, (0,)),
    Format.IQ2_S: BlockLayout(256, 82, (0,)),
    Format.IQ3_XXS: BlockLayout(256, 98, (0,)),
    Format.IQ3_S: BlockLayout(256, 110, (0,)),
    Format.IQ4_NL: BlockLayout(32, 18, (0,)),
    Format.IQ4_XS: BlockLayout(256, 136, (0,)),
    Format.TQ1_0: BlockLayout(256, 54, (52,)),
    Format.TQ2_0: BlockLayout(256, 66, (64,)),
}

# Weights that are widened at a time, and the rows that kernels keep together.
_CHUNK = 1 << 18
_ROWS = 32


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A weight matrix [n, k] exactly as stored; row i holds the weights of output i.

    Attributes:
        data: Dense formats: [n, k] in DENSE_DTYPES. Quantised: uint8 [n, k / weights * bytes] with
            the numbers of BLOCKS, GGUF blocks row by row.
    """

    format: Format
    n: int
    k: int
    data: torch.Tensor

    def __post_init__(self) -> None:
        if self.format in DENSE_DTYPES:
            expected = (DENSE_DTYPES[self.format], (self.n, self.k))
        else:
            layout = BLOCKS[self.format]
            if self.k % layout.weights:
                raise ValueError(
                    f"{self.format.name} rows hold whole blocks of {layout.weights}; k = {self.k}"
                )
            expected = (torch.uint8, (self.n, self.k // layout.weights * layout.bytes))
        found = (self.data.dtype, tuple(self.data.shape))
        if found != expected or not self.data.is_contiguous():
            raise ValueError(
                f"{self.format.name} [{self.n}, {self.k}] needs contiguous data {expected}, "
                f"got {found}"
            )

    def dequantize(self) -> torch.Tensor:
        """The matrix in fp32 [n, k].

        Widening a dense format, Q8_0 or Q4_0 is exact. Q4_1's d * q + m rounds once (d * q has at
        most 15 significant bits, so this equals fma(d, q, m)). The formats that kernels do not
        read are those of `gguf.quants.dequantize`.
        """
        if self.format in DENSE_DTYPES:
            return self.data.to(torch.float32)
        w = torch.empty(self.n, self.k, dtype=torch.float32, device="cpu")
        for start, rows in self.chunks():
            w[start : start + len(rows)] = rows
        return w

    def chunks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The matrix in fp32 [rows, k], some rows at a time, each with the first one's index.

        Every chunk but the last holds a multiple of 32 rows.
        """
        step = max(1, _CHUNK // (self.k * _ROWS)) * _ROWS
        for start in range(0, self.n, step):
            yield start, self.rows(start, start + step)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Rows start..stop-1 (as far as there are any) in fp32 [rows, k]."""
        data = self.data[start:stop]
        if self.format in DENSE_DTYPES:
            return data.to(torch.float32)
        if not len(data):
            return torch.empty(0, self.k, dtype=torch.float32, device="cpu")
        if not self.format.in_kernels:
            return dequantize_blocks(self.format.name, data)
        blocks = self._blocks(data)
        d = _half(blocks, 0)
        if self.format == Format.Q8_0:
            w = blocks[..., 2:].view(torch.int8).to(torch.float32).mul_(d)
        elif self.format == Format.Q4_0:
            w = _nibbles(blocks[..., 2:]).sub_(8.0).mul_(d)
        else:
            w = _nibbles(blocks[..., 4:]).mul_(d).add_(_half(blocks, 2))
        return w.view(len(data), self.k)

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        if self.format in DENSE_DTYPES:
            parts = [self.data]
        elif not BLOCKS[self.format].scales:
            parts = [rows for _, rows in self.chunks()]
        else:
            blocks = self._blocks(self.data)
            parts = [_half(blocks, at) for at in BLOCKS[self.format].scales]
        extremes = torch.stack([e for part in parts for e in torch.aminmax(part)])
        return bool(torch.isfinite(extremes).all())

    def _blocks(self, data: torch.Tensor) -> torch.Tensor:
        """uint8 [rows, blocks, bytes of a block]."""
        return data.view(len(data), -1, BLOCKS[self.format].bytes)


def _half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The fp16 at byte `at` of every block, widened to fp32 [rows, blocks, 1]."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16).to(torch.float32)


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """uint8 [..., 16] -> fp32 [..., 32]: the low nibbles are the block's first half."""
    w = torch.empty(*packed.shape[:-1], 32, dtype=torch.float32, device="cpu")
    w[..., :16] = packed & 15
    w[..., 16:] = packed >> 4
    return w


class TensorReader(Protocol):
    """A source's tensors under bitlens's names. Opening reads headers only."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> StoredMatrix:
        """Reads one tensor; a vector comes as one row."""
        ...


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model on disk: its config, its tokenizer, and its weights, read when asked for.

    Tensor names: `embed.weight` [V, d]; `blocks.i.ln1.weight`, `ln2.weight` and, with sandwich
    norms, `ln1_post.weight`, `ln2_post.weight` [d]; `blocks.i.attn.{q,k,v,o}.{weight,bias}`
    (weights [out, in]); `blocks.i.attn.{q,k}_norm.weight` [d_head];
    `blocks.i.mlp.{gate,up,down}.{weight,bias}`; `ln_final.weight`; `unembed.weight` unless tied.

    Attributes:
        name: What to call it in messages: the path it was opened from.
        tokenizer: None where a directory of weights has none.
        volatile: Whether the reader reads memory that its owner may change.
    """

    config: ModelConfig
    tokenizer: Tokenizer | None
    name: str
    reader: TensorReader
    volatile: bool = False

    def __deepcopy__(self, memo: object) -> Checkpoint:
        """Returns itself: it only reads."""
        return self

    def names(self) -> Iterator[str]:
        return iter(self.reader.shapes)

    def __contains__(self, name: object) -> bool:
        return name in self.reader.shapes

    def matrix(self, name: str) -> StoredMatrix:
        """Reads a 2-D weight. Raises CheckpointError on a short file, NaN or infinity."""
        return self._read(name, 2)

    def vector(self, name: str) -> torch.Tensor:
        """Reads a 1-D weight as fp32. Raises as `matrix` does."""
        return self._read(name, 1).dequantize()[0]

    def n_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.reader.shapes.values())

    def _read(self, name: str, n_dims: int) -> StoredMatrix:
        shape = self.reader.shapes.get(name)
        if shape is None or len(shape) != n_dims:
            raise KeyError(f"{self.name} has no {n_dims}-D tensor {name!r}")
        stored = self.reader.read(name)
        if not stored.is_finite():
            raise CheckpointError(f"{self.name}: tensor {name!r} holds NaN or infinity")
        return stored
