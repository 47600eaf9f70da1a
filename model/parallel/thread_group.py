"""Ranks that are threads of one process: tensor parallelism for tests and notebooks.

Ranks take turns: one runs until it gathers, then the next. That is no slower than running at once,
since every kernel uses all threads of the pool anyway.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from .group import Group, GroupError

R = TypeVar("R")


class _Exchange:
    """What the threads share: whose turn it is, and what each laid down at its last two steps."""

    def __init__(self, size: int, timeout: float) -> None:
        self.timeout = timeout
        self.turns: list[queue.SimpleQueue[None]] = [queue.SimpleQueue() for _ in range(size)]
        self.slots = [
            [(0, torch.empty(0, dtype=torch.float32, device="cpu"))] * size for _ in range(2)
        ]  # with the step's number
        self.ended = False
        self.failed = False

    def fail(self) -> None:
        """Lets everybody go on, to find that one has failed."""
        self.failed = True
        for turn in self.turns:
            turn.put(None)


class ThreadGroup:
    """One thread's membership in a group of threads. Made by `run_in_threads`."""

    def __init__(self, rank: int, size: int, exchange: _Exchange) -> None:
        self.rank = rank
        self.size = size
        self._exchange = exchange
        self._step = 0

    def all_gather(self, x: torch.Tensor) -> list[torch.Tensor]:
        if self._exchange.ended:
            raise self._lost()
        self._step += 1
        # Two sets of slots: rank 0 lays down its next tensor before the last rank read this one.
        slots = self._exchange.slots[self._step % 2]
        slots[self.rank] = (self._step, x.clone())  # the caller may go on to write into x
        self.pass_turn()
        self.await_turn()
        if any(step != self._step for step, _ in slots):
            raise self._lost()
        gathered = [part for _, part in slots]
        kinds = {f"{part.dtype} {list(part.shape)}" for part in gathered}
        if len(kinds) > 1:
            raise GroupError(
                f"rank {self.rank} of {self.size}: the ranks gather different things: {kinds}"
            )
        return gathered

    def await_turn(self) -> None:
        try:
            self._exchange.turns[self.rank].get(timeout=self._exchange.timeout)
        except queue.Empty:
            raise self._lost() from None
        if self._exchange.failed:
            raise self._lost()

    def pass_turn(self) -> None:
        self._exchange.turns[(self.rank + 1) % self.size].put(None)

    def _lost(self) -> GroupError:
        return GroupError(
            f"rank {self.rank} of {self.size}: another rank ended, or did not answer within the "
            "group's timeout"
        )


def run_in_threads(size: int, fn: Callable[[Group], R], *, timeout: float = 300.0) -> list[R]:
    """Calls fn(group) on `size` threads, each a rank of one group; returns their results.

    Args:
        timeout: Seconds a rank waits for the others.

    Raises what a rank raised; of several, what caused the rest: not a GroupError, if there is such.
    """
    exchange = _Exchange(size, timeout)

    def run(rank: int) -> R:
        group = ThreadGroup(rank, size, exchange)
        try:
            group.await_turn()
            result = fn(group)
        except BaseException:
            exchange.fail()
            raise
        exchange.ended = True
        group.pass_turn()
        return result

    exchange.turns[0].put(None)
    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, GroupError))
    return [future.result() for future in futures]
