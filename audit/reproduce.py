"""From the worst value of an audit to a script of few lines that shows it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from ..precision.emulation import emulate
from ..precision.faults import FAULTS
from ..precision.oracle import Verdict, check
from .implementations import Implementation, eager, native
from .judging import Worst
from .result import Reproducer
from .script import script
from .shrink import Inputs, Shrinking, pick, picked_output

_KEPT = 0.95
"""How much of the largest utilisation shrinking must keep where nothing is violated."""


@dataclass(frozen=True)
class _Source:
    """How the script comes by B's output.

    Attributes:
        run: None where the output is quoted.
        needed: What `call` uses, by module.
        call: Source text; None quotes it too.
    """

    run: Callable[[Inputs], torch.Tensor] | None
    needed: Mapping[str, tuple[str, ...]]
    call: str | None
    diagnosis: str | None = None


def reproducer(worst: Worst, implementation: str, subject: str) -> Reproducer:
    """Shrinks the worst value's operation and writes its script.

    Args:
        implementation: Whose kernels B runs, as `ModelPath.implementation` says.
        subject: What the script's first line calls the run.
    """
    worst = _in_two_axes(worst)
    one = pick(worst.contract.op, worst.inputs, worst.where)
    quoted = picked_output(worst.contract.op, worst.actual, worst.where)
    source = _source(worst, one, quoted, implementation)
    contract = worst.contract
    if source.run is None:
        shrunk, checks, actual = one, 1, quoted
    else:
        target = 2.0 if worst.violates else _KEPT * worst.utilisation
        run = source.run
        shrinking = Shrinking(
            contract.op, lambda inputs: _score(check(run(inputs), inputs, contract)), target
        )
        shrunk = shrinking.run(worst.inputs, worst.where)
        checks, actual = shrinking.checks, run(shrunk)
    verdict = check(actual, shrunk, contract)
    shown = "breaks its contract" if verdict.violations else "uses the most of its permitted error"
    title = f"{worst.address} of {subject}: {shown}."
    return Reproducer(
        address=worst.address,
        violates=verdict.violations > 0,
        utilisation=verdict.utilisation,
        original_utilisation=worst.utilisation,
        shapes_before=_shapes(worst.inputs),
        shapes_after=_shapes(shrunk),
        checks=checks,
        recomputes=source.run is not None,
        diagnosis=source.diagnosis,
        script=script(title, contract, shrunk, actual, source.needed, source.call),
    )


def _score(verdict: Verdict) -> float:
    """Utilisation of what is permitted, 2 for a violation."""
    return 2.0 if verdict.violations else verdict.utilisation


def _in_two_axes(worst: Worst) -> Worst:
    """A residual add is a batch of dot products [T, d, 2] with ones: rows of one product."""
    if worst.contract.op != "matmul" or worst.actual.ndim == 2:
        return worst
    t, j, n = worst.where
    inputs = {**worst.inputs, "a": worst.inputs["a"].flatten(0, 1)}
    where = (t * worst.actual.shape[1] + j, n)
    return replace(worst, inputs=inputs, actual=worst.actual.flatten(0, 1), where=where)


def _source(worst: Worst, one: Inputs, quoted: torch.Tensor, implementation: str) -> _Source:
    contract = worst.contract
    run = _KERNELS.get(implementation)
    if run is not None and _gives(run, one, quoted, worst):
        needed = {"bitlens.audit.implementations": (run.__name__,)}
        call = f"{run.__name__}(inputs, contract)"
        return _Source(lambda inputs: run(inputs, contract), needed, call)
    fault = _diagnosis(worst)
    if fault is not None:
        precision = {"bitlens.precision": ("FAULTS", "emulate")}
        text = f'emulate(inputs, contract, FAULTS["{fault}"])'
        return _Source(lambda x: emulate(x, contract, FAULTS[fault]), precision, text, fault)
    return _Source(None, {}, None)


_KERNELS: dict[str, Implementation] = {
    "bitlens NativeOps": native,
    "bitlens NativeHuggingFaceOps": native,
    "transformers eager": eager,
}


def _gives(run: Implementation, one: Inputs, quoted: torch.Tensor, worst: Worst) -> bool:
    """Whether computing anew gives what the run gave, to the bit, at least at the worst value."""
    try:
        y = run(one, worst.contract)
    except (ValueError, RuntimeError):
        return False
    return y.dtype == quoted.dtype and torch.equal(y, quoted)


def _diagnosis(worst: Worst) -> str | None:
    """The fault that explains the output of the worst value's rows, bit for bit at that value.

    Only elements count that the fault moves: a faulty run may agree with a right one elsewhere.
    """
    if not worst.violates:
        return None
    rows, actual, place = _rows_around(worst)
    clean = emulate(rows, worst.contract)
    best, found = 0.0, None
    for name, fault in FAULTS.items():
        if not fault.applies_to(worst.contract):
            continue
        bent = emulate(rows, worst.contract, fault)
        moved, given = bent != clean, actual == bent
        if not (moved & given)[place]:
            continue
        agreement = float((moved & given).sum() / (moved | (actual != clean)).sum())
        if agreement > best:
            best, found = agreement, name
    return found


def _rows_around(worst: Worst) -> tuple[Inputs, torch.Tensor, tuple[int, ...]]:
    """A few rows of a product; other operations are small enough to take whole."""
    if worst.contract.op != "matmul":
        return worst.inputs, worst.actual, worst.where
    row, column = worst.where
    start = max(row - 2, 0)
    rows = slice(start, start + 4)
    inputs = {**worst.inputs, "a": worst.inputs["a"][rows]}
    return inputs, worst.actual[rows], (row - start, column)


def _shapes(inputs: Inputs) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(value.shape)
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }
