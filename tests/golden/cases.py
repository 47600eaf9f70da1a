"""The golden vectors of the numerics spec: their inputs, rebuilt from integers, and their outputs.

`v3.txt` holds one line a case, written by `csrc/spec_tests/golden.cpp`:
`op key=value ... | count checksum | sample words`. Inputs mirror `csrc/spec_tests/golden_inputs.h`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Words = npt.NDArray[np.uint64]

FILE = Path(__file__).with_name("v3.txt")
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
FORMATS = {"f32": 0, "bf16": 1, "f16": 2, "q8_0": 3, "q4_0": 4, "q4_1": 5}
BLOCK_BYTES = {"q8_0": 34, "q4_0": 18, "q4_1": 20}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
QUIET_NAN = 0x7FC00000
# fmt: off
_SPECIALS = np.array(
    [0x00000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x33800000, 0x3F7FFFFF, 0x3F800000,
     0x3F800001, 0x42B17217, 0x42B17218, 0x42CFF1B4, 0x7F7FFFFF, 0x7F800000, 0x7FC00000],
    dtype=np.uint32,
)
# fmt: on


@dataclass(frozen=True)
class Case:
    """One line of the file; the meaning of the fields is in `csrc/spec_tests/golden_cases.h`."""

    op: str
    format: str
    act: str
    out: str
    rows: int
    n: int
    k: int
    flag: int
    position: int
    window: int
    real: float
    seed: int
    count: int
    checksum: int
    samples: tuple[int, ...]

    def __str__(self) -> str:
        shape = f"{self.rows}x{self.n}x{self.k}"
        return f"{self.seed}-{self.op}-{self.format}-{self.act}-{self.out}-{shape}-{self.flag}"

    def stream(self, number: int, count: int, start: int = 0) -> Words:
        """`count` 64-bit words of stream `number`, from index `start`."""
        key = self.key(number)
        index = np.arange(start, start + count, dtype=np.uint64)
        return _mix64(key + index * GOLDEN_RATIO)

    def key(self, number: int) -> Words:
        """Where stream `number` starts, [1]."""
        return _mix64(np.array([self.seed * 16 + number], dtype=np.uint64))

    def centered(self, number: int, *shape: int, start: int = 0) -> torch.Tensor:
        """fp32 multiples of 2^-23 in [-1, 1)."""
        words = self.stream(number, int(np.prod(shape)), start)
        integers = (words >> np.uint64(40)).astype(np.int32) - np.int32(1 << 23)
        values = integers.astype(np.float32) * np.float32(2.0**-23)
        return torch.from_numpy(values).reshape(shape)

    def activations(self, number: int, *shape: int, start: int = 0) -> torch.Tensor:
        """`centered`, rounded to the case's activation dtype."""
        return self.centered(number, *shape, start=start).to(DTYPES[self.act])

    def stored_weights(self, n: int) -> torch.Tensor:
        """`n` rows of `k` weights as a checkpoint stores them, from stream 0."""
        if self.format in DTYPES:
            return self.centered(0, n, self.k).to(DTYPES[self.format])
        block = BLOCK_BYTES[self.format]
        size = self.k // 32 * block
        raw = (self.stream(0, n * size) >> np.uint64(56)).astype(np.uint8).reshape(-1, block)
        raw[:, 1] &= 0xBF
        if self.format == "q4_1":
            raw[:, 3] &= 0xBF
        return torch.from_numpy(raw.reshape(n, size))


def specials() -> torch.Tensor:
    """The special values, each followed by its negation."""
    signed = np.stack([_SPECIALS, _SPECIALS | np.uint32(0x80000000)], axis=1).reshape(-1)
    return torch.from_numpy(signed.view(np.float32).copy())


def words_of(*outputs: torch.Tensor) -> npt.NDArray[np.uint32]:
    """The bits of all outputs in order, widened to fp32, every NaN as one value.

    fp64 outputs (RoPE frequencies) are their raw low and high words.
    """
    parts = []
    for output in outputs:
        if output.dtype == torch.float64:
            parts.append(output.numpy().view(np.uint32))
            continue
        flat = output.detach().reshape(-1).to(torch.float32).numpy()
        parts.append(np.where(np.isnan(flat), np.uint32(QUIET_NAN), flat.view(np.uint32)))
    return np.concatenate(parts)


def checksum(words: npt.NDArray[np.uint32], start: int = 0) -> int:
    """Sum of mix64(i * golden ratio + word_i) mod 2^64, i counting from `start`."""
    index = np.arange(start, start + len(words), dtype=np.uint64)
    return int(_mix64(index * GOLDEN_RATIO + words).sum(dtype=np.uint64))


def samples(words: npt.NDArray[np.uint32]) -> tuple[int, ...]:
    """The evenly spaced words that a line shows."""
    count = min(len(words), 8)
    at = [0] if count == 1 else [i * (len(words) - 1) // (count - 1) for i in range(count)]
    return tuple(int(words[i]) for i in at)


@cache
def load() -> tuple[Case, ...]:
    """Every case of the file."""
    lines = FILE.read_text().splitlines()
    return tuple(_parse(line) for line in lines if not line.startswith("#"))


def _parse(line: str) -> Case:
    head, outputs, shown = line.split("|")
    op, *pairs = head.split()
    fields: dict[str, Any] = dict(pair.split("=") for pair in pairs)
    for name in ("rows", "n", "k", "flag", "position", "window", "seed"):
        fields[name] = int(fields[name])
    fields["real"] = float(fields["real"])
    count, digest = outputs.split()
    words = tuple(int(word, 16) for word in shown.split())
    return Case(op, **fields, count=int(count), checksum=int(digest, 16), samples=words)


def _mix64(z: Words) -> Words:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
