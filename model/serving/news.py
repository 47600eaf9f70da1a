"""What is new, told once a pass."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

Listener = Callable[[], None]


class News:
    """Tells listeners at the end of a pass, however much each of them would hear during it.

    A listener wakes another thread, which takes the interpreter from the one that is in the pass:
    an answer's first token, its text and its end would each wait for the processor twice. Used as
    a context manager around a pass; outside of one, listeners hear at once.
    """

    def __init__(self) -> None:
        self._waiting: dict[Listener, None] | None = None

    def through(self, listener: Listener) -> Listener:
        """Returns what to call when there is news for a listener."""

        def hear() -> None:
            if self._waiting is None:
                listener()
            else:
                self._waiting[listener] = None

        return hear

    def __enter__(self) -> None:
        self._waiting = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        waiting, self._waiting = self._waiting, None
        for listener in waiting or ():
            listener()
