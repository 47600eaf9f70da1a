"""The kinds of tensors an operand can be drawn as, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from ..formats import Format, format_of
from .floats import signed_zeros
from .logits import masked_logits, repeated_max, router_ties, top2_collisions
from .recipe import Recipe
from .tensors import (
    constant_tensors,
    extreme_tensors,
    far_from_zero,
    listed_tensors,
    massive_activations,
    random_tensors,
    subnormal_tensors,
    tie_tensors,
    wide_dynamic_range,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """Exponents an operand may have: usually, and at most without overflow further on."""

    usual: tuple[int, int]
    widest: tuple[int, int]


def _narrower(fmt: Format) -> str | None:
    """The format whose ties values of `fmt` can hit."""
    targets = {"fp32": "bf16", "fp16": "bf16", "fp64": "fp32", "bf16": "fp8_e4m3"}
    return targets.get(fmt.name)


def _ties(shape: Shape, fmt: Format, span: Span, away: int) -> st.SearchStrategy[Recipe]:
    target = _narrower(fmt)
    assert target is not None
    return tie_tensors(shape, fmt, target, away=away, exponents=span.usual)


def _collisions(shape: Shape, fmt: Format, span: Span) -> st.SearchStrategy[Recipe]:
    return top2_collisions(shape, fmt, _narrower(fmt) or fmt, max_exponent=span.usual[1])


def _router(shape: Shape, fmt: Format, span: Span) -> st.SearchStrategy[Recipe]:
    top_k = min(2, shape[-1] - 1)
    target = _narrower(fmt) or fmt
    return router_ties(shape, fmt, target, top_k=top_k, max_exponent=span.usual[1])


def _far(shape: Shape, fmt: Format, span: Span) -> st.SearchStrategy[Recipe]:
    high = min(20, max(span.usual[1], span.widest[1]))
    return far_from_zero(shape, fmt, exponents=(min(4, high), high))


KINDS: dict[str, Callable[[Shape, Format, Span], st.SearchStrategy[Recipe]]] = {
    "random": lambda shape, fmt, span: random_tensors(shape, fmt, exponents=span.usual),
    "constant": lambda shape, fmt, span: constant_tensors(shape, fmt, exponents=span.usual),
    "float_values": lambda shape, fmt, span: listed_tensors(shape, fmt, exponents=span.widest),
    "signed_zeros": lambda shape, fmt, _: listed_tensors(shape, fmt, elements=signed_zeros()),
    "subnormals": lambda shape, fmt, _: subnormal_tensors(shape, fmt),
    "wide_dynamic_range": lambda shape, fmt, span: wide_dynamic_range(
        shape, fmt, exponents=span.widest
    ),
    "massive_activations": lambda shape, fmt, span: massive_activations(
        shape, fmt, exponents=span.usual, max_exponent=span.widest[1]
    ),
    "far_from_zero": _far,
    "extremes": lambda shape, fmt, _: extreme_tensors(shape, fmt),
    "rounding_ties": lambda shape, fmt, span: _ties(shape, fmt, span, 0),
    "near_ties": lambda shape, fmt, span: _ties(shape, fmt, span, 4),
    "repeated_max": lambda shape, fmt, span: repeated_max(shape, fmt, max_exponent=span.usual[1]),
    "top2_collisions": _collisions,
    "router_ties": _router,
    "masked": lambda shape, fmt, span: masked_logits(shape, fmt, exponents=span.usual),
}
"""Every kind: (shape, format, span) -> recipes."""

LISTED = {"float_values", "signed_zeros", "extremes"}
"""Kinds that draw element by element: for small tensors."""

LOGITS = {"repeated_max", "top2_collisions", "router_ties", "masked"}
"""Kinds of logits, which need a row of three or more."""


def available(format: str | Format, logits: bool) -> list[str]:
    """Names in `KINDS` that make sense for operands in this format."""
    fmt = format_of(format)
    narrower = _narrower(fmt)
    names = [name for name in KINDS if logits or name not in LOGITS]
    if narrower is None:
        names = [name for name in names if name not in ("rounding_ties", "near_ties")]
    if not fmt.infinities:
        names = [name for name in names if name != "masked"]
    spare = fmt.precision - format_of(narrower).precision if narrower else 0
    if spare < 2:
        names = [n for n in names if n not in ("near_ties", "top2_collisions", "router_ties")]
    return names
