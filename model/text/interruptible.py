"""Calls of foreign code that Ctrl-C ends at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

_LOOK = 0.1
"""Seconds after which the main thread looks for signals."""


def interruptible(function: Callable[[], T]) -> T:
    """Returns what a function returns, or raises what it raises.

    A signal reaches Python between two of its instructions, so one long call of compiled code would
    keep Ctrl-C waiting. Here another thread makes the call, and must let go of the interpreter's
    lock in it; the main thread only waits, and leaves the call behind where it is interrupted.
    """
    if threading.current_thread() is not threading.main_thread():  # which no signal reaches
        return function()
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    while not future.done():  # the signal may land in a thread that does not wake this one
        wait([future], timeout=_LOOK)
    return future.result()
