"""Compares what two models take their operations to mean, before any rounding is.

A base of the rotary angles, a window, a scale: derived from a config, not learned and not rounded.
Where two models derive others, they compute other functions, and no contract of precision says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

Value = float | int | str | tuple[float, ...] | None


@dataclass(frozen=True)
class Quantity:
    """One derived quantity.

    Attributes:
        value: A number, several, or words; None where there is no such thing, such as a window.
        tolerance: How far rounding may have moved it, relative.
        unless: A quantity that says the same in other words: where both models have that one, this
            one is not compared.
    """

    value: Value
    tolerance: float = 0.0
    unless: str | None = None


Quantities = Mapping[str, Mapping[str, Quantity]]
"""By what it is called ("RoPE base"), then by address."""


@runtime_checkable
class Derives(Protocol):
    """A model that says what it derives from its config."""

    def derived_quantities(self, tokens: Any, /) -> Quantities:
        """Returns the quantities that a pass over these tokens uses. May run one."""
        ...


@dataclass(frozen=True)
class MeaningDifference:
    """Models a and b take a quantity otherwise.

    Attributes:
        name: What it is called.
        a, b: What each takes it for.
        addresses: Where, in the order of a pass.
    """

    name: str
    a: str
    b: str
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        """Such as "RoPE base 10000 against 500000 at blocks.0.attn.rope_q and 1 more"."""
        more = f" and {len(self.addresses) - 1} more" if len(self.addresses) > 1 else ""
        return f"{self.name} {self.b} against {self.a} at {self.addresses[0]}{more}"


def meaning_differences(a: Any, b: Any, tokens: Any) -> tuple[MeaningDifference, ...]:
    """Returns how b's derived quantities differ from a's; nothing where either does not say."""
    if not (isinstance(a, Derives) and isinstance(b, Derives)):
        return ()
    of_a, of_b = a.derived_quantities(tokens), b.derived_quantities(tokens)
    found: dict[tuple[str, str, str], list[str]] = {}
    for name in of_a.keys() & of_b.keys():
        for address, y in of_b[name].items():
            x = of_a[name].get(address)
            said = y.unless is not None and all(
                address in of.get(y.unless, {}) for of in (of_a, of_b)
            )
            if x is not None and not said and not _same(x, y):
                key = (name, _text(x.value), _text(y.value))
                found.setdefault(key, []).append(address)
    order = list(of_b)
    differences = (MeaningDifference(*key, tuple(where)) for key, where in found.items())
    return tuple(sorted(differences, key=lambda d: (order.index(d.name), d.addresses)))


def _same(x: Quantity, y: Quantity) -> bool:
    if isinstance(x.value, tuple) and isinstance(y.value, tuple):
        if len(x.value) != len(y.value):
            return False
        pairs = zip(x.value, y.value, strict=True)
        return all(_near(p, q, max(x.tolerance, y.tolerance)) for p, q in pairs)
    if _is_number(x.value) and _is_number(y.value):
        return _near(x.value, y.value, max(x.tolerance, y.tolerance))
    return x.value == y.value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _near(x: Any, y: Any, tolerance: float) -> bool:
    return bool(abs(x - y) <= tolerance * max(abs(x), abs(y)))


def _text(value: Value) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        shown = ", ".join(_text(x) for x in value[:4])
        return f"({shown}{', ...' if len(value) > 4 else ''})"
    if isinstance(value, float) and math.isfinite(value):
        whole = value == int(value) and abs(value) < 1e15
        return str(int(value)) if whole else f"{value:.6g}"
    return str(value)
