"""The invariance table behind `bitlens verify`: the promises of docs/numerics.md on a given model.

Every row runs the model in two ways that must agree and compares all logits and all hook values
by their bits. Every row also says what proves that the second way was really taken. The last rows
are negative controls: they compute the same function in another order and must differ.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ... import _core
from ...model.load import load
from ...model.ops.policy import NATIVE_POLICIES, get_policy
from . import surroundings
from . import variations as invariance
from .observation import Tally
from .variations import Scope, Subject

Progress = Callable[[str, int, int], None]
"""Called with (property, rows done, rows in all) before each row and once at the end."""

FULL = Scope()
QUICK = Scope(
    n_tokens=6,
    chunk_lengths=(2, 7, 16, 64),
    n_long=160,
    n_random_cuts=1,
    generic_tokens=4,
    every_layer=False,
)


@dataclass(frozen=True)
class VerifyRow:
    """One promise.

    Attributes:
        varied: What was varied.
        compared: The variations tried.
        values: How many numbers were compared.
        different: How many of them had other bits.
        control: A negative control, which must differ.
        evidence: What shows that the varied path ran.
        error: Why the row could not be run, else None.
    """

    varied: str
    compared: str
    values: int
    different: int
    control: bool
    evidence: str
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and self.values > 0 and (self.different > 0) == self.control


@dataclass(frozen=True)
class VerifyReport:
    model: str
    dtype: str
    isa: str
    threads: int
    numerics_version: str
    seconds: float
    rows: tuple[VerifyRow, ...]
    not_covered: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def ok(self) -> bool:
        """Whether every promise held and every control differed."""
        return all(row.ok for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        rows = [dataclasses.asdict(row) | {"ok": row.ok} for row in self.rows]
        return dataclasses.asdict(self) | {"rows": rows, "ok": self.ok}


@dataclass(frozen=True)
class _Property:
    name: str
    compared: str
    run: Callable[[Subject, Tally], str]
    control: bool = False


def _properties(scope: Scope, dtype: str, device: str = "cpu") -> list[_Property]:
    lengths = scope.chunk_lengths
    chunks = f"{lengths[0]}..{lengths[-1]}" if scope.every_layer else ", ".join(map(str, lengths))
    return [
        _Property("batch size, position in it", "1, 2, 3, 8, 17 rows", invariance.batch_size),
        _Property("batch mates of other lengths", "left-padded", invariance.other_lengths),
        _Property("padding side", "left, right", invariance.padding_side),
        _Property("prompt in chunks", f"of {chunks} tokens", invariance.chunks),
        _Property("prompt cut at random", "any length", invariance.random_cuts),
        _Property("decode one by one", "against one prefill", invariance.decode),
        *_surroundings(device),
        _Property("identity hooks", "returned, cloned", invariance.identity_hooks),
        _Property("hooks that read", "nothing, one, all", invariance.reading_hooks),
        _Property("weight storage", "packed, fp32 panels", invariance.weight_storage),
        _Property("second process", "loaded again", surroundings.second_process),
        _control_of_order(dtype),
        _Property("control: torch backend", "must differ", invariance.torch_backend, control=True),
    ]


def _surroundings(device: str) -> list[_Property]:
    """Those that a pass on this device may depend on, and that it outlives."""
    thread = _Property(
        "calling thread", "a foreign one with flush-to-zero", surroundings.foreign_thread
    )
    flushed = _Property("flush-to-zero in torch", "on, off", surroundings.flush_denormal)
    if device != "cpu":
        return [_Property("device", f"{device}, cpu", surroundings.on_cpu), flushed, thread]
    return [
        _Property("threads", "1, 2, 4", surroundings.threads),
        _Property("instruction set", ", ".join(_core.available_isas()), surroundings.isa),
        flushed,
        thread,
        _Property("after fork", "child, parent", surroundings.after_fork),
    ]


def _control_of_order(dtype: str) -> _Property:
    """Another order must move what is kept in fp32: logits, or where they are bf16 norm scales."""
    if get_policy(dtype).stepwise:
        return _Property("control: one chain", "must differ", invariance.one_chain, control=True)
    return _Property("control: leaf of 16", "must differ", invariance.other_leaf, control=True)


def _not_covered(dtype: str, device: str) -> tuple[str, ...]:
    """What is promised, or could be thought so, and not run here."""
    unfused = (f"fused blocks, which {dtype} does not have",) if get_policy(dtype).stepwise else ()
    if device != "cpu":
        return (*unfused, "other GPUs", "a forked process, in which CUDA does not run")
    return (*unfused, "several ranks (tests/parallel)", "other CPUs and CUDA (docs/numerics.md)")


def verify(
    source: str | Path,
    *,
    dtype: str = "fp32",
    quick: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> VerifyReport:
    """Checks every promise on the model at `source` (see `bitlens.load`) and reports row by row.

    On a GPU the CPU's bits are one of them. `quick` takes fewer lengths and reads the hooks of
    three layers instead of all. Process-wide settings (threads, instruction set, flush-to-zero) are
    put back. A row that raises becomes a failed row; a source that cannot be loaded raises as
    `load` does.
    """
    if dtype not in NATIVE_POLICIES:
        raise ValueError(
            f"verify: dtype {dtype!r} promises no bits; use {', '.join(NATIVE_POLICIES)}"
        )
    started = time.perf_counter()
    scope = QUICK if quick else FULL
    model = load(source, dtype=dtype, device=device)
    subject = Subject(model, str(source), dtype, scope, device)
    todo = _properties(scope, dtype, device)
    rows = []
    for done, item in enumerate(todo):
        if progress is not None:
            progress(item.name, done, len(todo))
        rows.append(_run(item, subject))
    if progress is not None:
        progress("done", len(todo), len(todo))
    return VerifyReport(
        model=str(source),
        dtype=dtype,
        isa=_core.isa(),
        threads=_core.get_num_threads(),
        numerics_version=_core.numerics_version,
        seconds=time.perf_counter() - started,
        rows=tuple(rows),
        not_covered=_not_covered(dtype, device),
        device=device,
    )


def _run(item: _Property, subject: Subject) -> VerifyRow:
    tally, evidence, error = Tally(), "", None
    threads, isa = _core.get_num_threads(), _core.isa_setting()
    try:
        evidence = item.run(subject, tally)
    except Exception as problem:  # one broken row must not hide the others
        error = f"{type(problem).__name__}: {problem}"
    finally:
        torch.set_flush_denormal(False)
        _core.set_num_threads(threads)
        _core.set_isa(isa)
    return VerifyRow(
        item.name, item.compared, tally.values, tally.different, item.control, evidence, error
    )
