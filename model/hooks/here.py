"""The functions that `with` blocks installed, as the running context sees them (PEP 567).

A thread begins with nothing, an asyncio task with what stood where it was made: a block reaches the
code that runs inside it, and nobody else's.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_HERE: ContextVar[tuple[tuple[object, object], ...]] = ContextVar("bitlens", default=())


def here(owner: object, default: T) -> T:
    """Returns what was last put in place for an owner in this context; without any, `default`."""
    for each, value in _HERE.get():
        if each is owner:
            return value  # type: ignore[return-value]
    return default


def put_here(owner: object, value: object | None) -> None:
    """Puts an immutable value in place for an owner in this context; None leaves nothing."""
    others = tuple(pair for pair in _HERE.get() if pair[0] is not owner)
    _HERE.set(others if value is None else (*others, (owner, value)))
