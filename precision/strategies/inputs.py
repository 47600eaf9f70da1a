"""Inputs of a whole operation, drawn to suit its contract."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from hypothesis import strategies as st

from ..contract import PrecisionContract
from ..formats import FORMATS
from ..operations import OPERATIONS
from .drawing import Drawing, Formats
from .drawn import DrawnInputs
from .operands import available

_NEED_8_BITS = {"ill_conditioned_dot", "stagnating_sums", "vanishing_probabilities"}
"""Own kinds whose numbers fp8 does not hold."""


def strategy_names(
    contract: PrecisionContract, arguments: Collection[str] | None = None
) -> list[str]:
    """The kinds of inputs that `inputs_for` mixes for this contract and these arguments."""
    operation, storage = OPERATIONS[contract.op], FORMATS[contract.storage]
    drawing = _drawing(contract.op)
    names = available(contract.storage, logits=operation.masked)
    names += [n for n in drawing.kinds if storage.precision >= 8 or n not in _NEED_8_BITS]
    return names if arguments is None else drawing.kinds_with(names, arguments)


@st.composite
def inputs_for(
    draw: st.DrawFn,
    contract: PrecisionContract,
    *,
    strategies: Sequence[str] | None = None,
    max_size: int = 513,
    arguments: Collection[str] | None = None,
    needed: Collection[str] = (),
) -> DrawnInputs:
    """Inputs by argument name for `contract.op`, in its storage format.

    Everything is drawn that the operation's input check allows: all optional arguments, at their
    edges, finite numbers up to the format's ends, and -inf for softmax and logsumexp.

    One of `strategies` (default: all of `strategy_names`) makes the main operand; sizes lie on tile
    boundaries up to `max_size`. `arguments` leaves out the optional ones that are not in it,
    `needed` are never left out. Raises ValueError for a name that does not apply.
    """
    known = strategy_names(contract, arguments)
    names = list(known if strategies is None else strategies)
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(
            f"{', '.join(unknown)}: no strategy for {contract.op} stored in {contract.storage}; "
            f"there are {', '.join(known)}"
        )
    kind = draw(st.sampled_from(names))
    formats = Formats(
        *(FORMATS[f] for f in (contract.storage, contract.compute, contract.accumulate))
    )
    drawing = _drawing(contract.op)
    recipes = drawing.inputs(draw, formats, kind, max_size)
    for name in drawing.sometimes:
        if name not in needed and draw(st.booleans()):
            recipes.pop(name, None)
    return DrawnInputs(**_without(contract.op, recipes, arguments))


def _drawing(op: str) -> Drawing:
    return OPERATIONS[op].drawings()[op]


def _without(op: str, recipes: dict[str, Any], arguments: Collection[str] | None) -> dict[str, Any]:
    """Less the optional arguments that an implementation does not take."""
    if arguments is None:
        return recipes
    dropped = set(OPERATIONS[op].optional) - set(arguments)
    recipes = _drawing(op).without(recipes, dropped)
    return {name: value for name, value in recipes.items() if name not in dropped}
