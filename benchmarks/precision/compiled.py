"""torch.compile's versions of the honest code, and what they round.

Inductor fuses elementwise steps and keeps what lies between them in fp32: it rounds where a tensor
is written, and a contract of eager bf16 with casts in between is not its own. With
`emulate_precision_casts` it rounds where eager code does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ...precision.contract import PrecisionContract
from ...precision.reals.definitions import arguments_of
from .implementations import CODE, EAGER, WIDE, Implementation, eager_mixing, stored
from .libraries import LIBRARIES

Tensor = torch.Tensor

FUSED, KEPT = "torch compiled", "torch compiled, casts kept"

_ARITHMETIC = {**EAGER, "attention": eager_mixing}
"""Eager code whose inputs are completed: checks of inputs are not compiled."""

_GRAPHS = 64
"""Graphs of one operation: sizes of 1 and options have their own, other sizes share one."""


def compiled(library: str, op: str) -> dict[str, Implementation]:
    """Returns the compiled code by name; none for bitlens's contracts, which are of kernels."""
    contract = LIBRARIES[library][op]
    if library.startswith("bitlens"):
        return {}
    if contract.storage != "bf16" or op not in EAGER:
        return {FUSED: stored(compile_whole(_wide(op, contract)), contract)}
    found = {FUSED: _completed(op, compile_whole(_ARITHMETIC[op]))}
    if len(contract.casts) > 1:
        found[KEPT] = _completed(op, compile_whole(_ARITHMETIC[op], keep_casts=True))
    return found


def promised(name: str, contract: PrecisionContract) -> PrecisionContract:
    """Returns what compiled code of that name promises where the contract is its eager twin's."""
    if name == KEPT and contract.op != "log_softmax":  # which it takes apart, and keeps in fp32
        return contract
    written = _WRITTEN.get(contract.op, ()) if len(contract.casts) > 1 else ()
    return dataclasses.replace(contract, casts=(*written, "output"))


_WRITTEN = {"attention": ("scores", "probabilities"), "embedding": ("scale",)}
"""The cast points at which fused code rounds: where products of matrices meet, and a scale that is
a tensor of its own."""


def compile_whole(code: Implementation, *, keep_casts: bool = False) -> Implementation:
    """Returns the code compiled as one graph; what cannot be raises, and never runs eagerly."""
    options: dict[str, Any] = {"emulate_precision_casts": keep_casts}
    run = torch.compile(code, fullgraph=True, dynamic=True, options=options)

    def implementation(**inputs: Any) -> Tensor:
        with torch._dynamo.config.patch(recompile_limit=_GRAPHS):
            return run(**inputs)

    return implementation


def _wide(op: str, contract: PrecisionContract) -> Implementation:
    """torch's own function where the contract allows for it, or what is written with torch."""
    kept = {
        name: code
        for name, code in WIDE[op].items()
        if CODE.FUNCTION_ULP.get(name, 2.0) <= contract.function_ulp and name not in _NOT_COMPILED
    }
    return next((code for name, code in kept.items() if name.startswith("torch")), None) or next(
        iter(kept.values())
    )


_NOT_COMPILED = ("torch sdpa", "torch.optim")
"""A kernel that compiled code calls as it is, and an optimizer that is an object."""


def _completed(op: str, code: Implementation) -> Implementation:
    def implementation(**inputs: Any) -> Tensor:
        return code(**arguments_of(op, inputs))

    return implementation
