"""What is measured: each suite's `rows(options)` yields its table row by row."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ... import _core
from ..report import Row


class Suite(StrEnum):
    """Each is a module here, measured in this order."""

    bandwidth = "bandwidth"
    decode = "decode"
    prefill = "prefill"
    linear = "linear"
    gemv = "gemv"
    attention = "attention"
    hooks = "hooks"
    monitors = "monitors"
    load = "load"
    light = "light"
    control = "control"
    growth = "growth"
    sampling = "sampling"
    serving = "serving"
    first_token = "first_token"
    http = "http"
    dictionaries = "dictionaries"
    dictionary_growth = "dictionary_growth"
    circuits = "circuits"


NO_BF16 = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
"""Makes oneDNN and bitlens behave as on a machine without bf16 instructions."""
if {"avx512_bf16", "amx"} & set(_core.available_isas()):
    NO_BF16["BITLENS_ISA"] = "avx512"
HAS_TILES = "amx" in _core.available_isas()
TILES = "AMX"
"""The hardware that a goal for tiles needs (`Row.needs`)."""
WITHOUT = ", no bf16 instructions"
"""How contenders in that environment are named."""


@dataclass(frozen=True)
class Options:
    """What to measure, and how long.

    Attributes:
        model: Path of the GGUF file.
        quick: Tiny sizes and one round: shows that everything runs, measures nothing.
    """

    model: str
    threads: tuple[int, ...]
    dtypes: tuple[str, ...]
    rounds: int
    quick: bool

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def command(suite: str, threads: int | None = None, dtype: str | None = None) -> str:
    """What measures a part of a suite alone."""
    words = ["python", "-m", "bitlens.benchmarks", suite]
    words += ["--threads", str(threads)] if threads is not None else []
    words += ["--dtype", dtype] if dtype is not None else []
    return shlex.join(words)


def threads_text(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def clock(threads: int) -> str:
    """Returns the clock of suites that can do without a quiet machine: the processor's, of one
    thread."""
    return "processor" if threads == 1 else "wall"


def run(suite: Suite, options: Options) -> Iterator[Row]:
    """The rows of a suite, as they are measured."""
    rows: Iterator[Row] = importlib.import_module(f".{suite}", __name__).rows(options)
    return rows
