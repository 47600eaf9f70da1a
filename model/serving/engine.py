"""One model for many requests, which join and leave at any step."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from functools import cached_property
from threading import RLock
from types import TracebackType
from typing import Self

import torch

from ..batching.continuous_batch import ContinuousBatch
from ..cache.page_pool import pages_of
from ..cache.prefix_cache import CacheableModel, PrefixCache, kept_page_bytes
from .clock import SharedClock
from .counts import EngineStats
from .fingerprint import pool_fingerprint
from .handle import Handle
from .intake import Intake, ServedModel
from .request import EngineFull, ModelIsWatched, Request, WrongPool
from .row import RequestRow


class Engine:
    """Runs many requests on one model, in steps: one forward pass over whatever is due.

        with Engine(model) as engine:
            handles = [engine.submit(Request(prompt, max_new_tokens=40)) for prompt in prompts]
            print([handle.result().text for handle in handles])

    A request's tokens are those of `model.generate`, bit for bit, whoever runs beside it. Steps are
    taken by whoever waits for an answer, in any thread, one at a time. Over ranks, all of them
    submit the same requests in the same order and wait for the same answers; rank 0's clock and
    cancellations count.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        cache_bytes: int | None = None,
        max_running: int = 32,
        token_budget: int = 512,
        max_waiting: int = 256,
        ttl: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reserves the memory of keys and values, which is not used before it is written to.

        Args:
            cache_bytes: The bound on all keys and values, of prompts that are kept as well; None
                takes what `max_running` sequences of the whole context need, at most a quarter
                of the machine's memory.
            max_running: Samples that run at a time.
            token_budget: Tokens a step runs on: a longer prompt is read over several steps, beside
                others' writing.
            max_waiting: Requests beyond these raise EngineFull.
            ttl: Seconds for which a prompt is kept; None keeps it until the room is needed.
            clock: Seconds, for deadlines and `ttl`.

        Raises ValueError naming the argument.
        """
        if max_running < 1 or max_waiting < 0 or token_budget <= max_running:
            raise ValueError(
                f"max_running = {max_running}, max_waiting = {max_waiting}, token_budget = "
                f"{token_budget}: expected max_running >= 1, max_waiting >= 0 and a budget above "
                "max_running, which leaves prompts a part of it"
            )
        self.model = model
        self._clock = SharedClock(clock, model.group)
        self.cache = PrefixCache(
            model,
            default_cache_bytes(model, max_running) if cache_bytes is None else cache_bytes,
            ttl=ttl,
            clock=self._clock.now,
        )
        self._batch: ContinuousBatch[RequestRow] = ContinuousBatch(
            model, self.cache, max_running=max_running, token_budget=token_budget
        )
        self._max_waiting = max_waiting
        self._intake = Intake(self, model, self._clock.now, self.cache.pool.capacity)
        self._inbox: deque[list[RequestRow]] = deque()
        self._lock = RLock()
        self._closed = self._in_step = False

    @cached_property
    def fingerprint(self) -> str:
        """The digest of all that decides an answer beside its request."""
        return pool_fingerprint(self.model)

    def now(self) -> float:
        """Returns the time of the engine's clock, which deadlines are in."""
        return self._clock.now()

    def submit(self, request: Request, *, listener: Callable[[], None] | None = None) -> Handle:
        """Takes a request; nothing is computed before somebody waits for it.

        `listener` is called by whoever drives the engine, when there is something new.

        Raises:
            EngineFull: for too many waiting ones.
            WrongPool: for one that names another engine's fingerprint.
            ValueError: naming what is wrong with the request, or if it can never fit.
            RuntimeError: after `close`.
        """
        self._require_open()
        if request.pool_fingerprint not in (None, self.fingerprint):
            raise WrongPool(
                f"pool_fingerprint: the request is for {request.pool_fingerprint}, this is "
                f"{self.fingerprint}: weights, policy, RoPE or numerics differ"
            )
        rows = self._intake.rows(request, listener)
        n_waiting = len(self._batch.queues.waiting) + len(self._inbox)
        if n_waiting >= self._max_waiting:
            raise EngineFull(
                f"{n_waiting} samples wait: take answers first, or give max_waiting a larger number"
            )
        # Without the lock, which a step may hold for long; the next one finds them here.
        self._inbox.append(rows)
        return rows[0].handle

    @torch.no_grad()
    def step(self) -> bool:
        """Runs one step; returns False if there was nothing to do.

        Raises:
            ModelIsWatched: where hooks or overrides are installed: rows of others would pass
                through them.
            RuntimeError: after `close`, and within a step.
        """
        with self._lock:
            self._require_open()
            if self.model.is_watched:
                raise ModelIsWatched(
                    "hooks or overrides are installed, and an engine's passes mix the rows of many "
                    "requests: remove them, or use model.generate"
                )
            if self._in_step:
                raise RuntimeError(
                    "step: a request's own function, which runs within a step, waits for an "
                    "answer, which takes another: let the function return first"
                )
            self._in_step = True
            try:
                return self._step()
            except KeyboardInterrupt:
                self._batch.begin_again()
                raise
            finally:
                self._in_step = False

    def cancel(self, handle: Handle) -> None:
        """Ends a request; its answers so far stay. Over ranks, rank 0's word counts, in the next
        step."""
        self._clock.cancel(handle.number)
        while self.model.group is None and not handle.is_done:
            # Whoever holds the lock is in a step, and the next one ends the request as well.
            if not self._lock.acquire(timeout=0.001):
                continue
            try:
                self._open_inbox()
                for row in self._batch.queues.all():
                    if row.handle is handle:
                        self._batch.end(row, "cancelled")
            finally:
                self._lock.release()

    def stats(self) -> EngineStats:
        """Returns counts since the beginning, and what is under way."""
        with self._lock:
            self._open_inbox()
            queues, counts = self._batch.queues, self._batch.counts
            return EngineStats(
                running=len(queues.running),
                waiting=len(queues.all()) - len(queues.running),
                steps=counts.steps,
                tokens=counts.tokens,
                replayed=counts.replayed,
                preemptions=counts.preemptions,
                cache=self.cache.stats(),
            )

    def close(self) -> None:
        """Cancels what is under way and gives up what is kept."""
        with self._lock:
            self._closed = True
            self._open_inbox()
            for row in self._batch.queues.all():
                self._batch.end(row, "cancelled")
            self.cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open_inbox(self) -> None:
        while self._inbox:
            first, *others = self._inbox.popleft()
            self._batch.queues.add(first, others)

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")

    def _step(self) -> bool:
        self._open_inbox()
        now, cancelled = self._clock.tick()
        for row in self._batch.queues.all():
            if row.handle.number in cancelled:
                self._batch.end(row, "cancelled")
            elif row.request.deadline is not None and row.request.deadline <= now:
                self._batch.end(row, "deadline")
        ran = self._batch.step()
        return bool(ran or self._inbox)


def default_cache_bytes(model: CacheableModel, max_running: int) -> int:
    """Returns the bytes of `max_running` sequences of the whole context, at most a quarter of the
    machine's memory."""
    bytes_of_page = kept_page_bytes(model)
    wanted = max_running * (pages_of(model.config.n_ctx) + 1) * bytes_of_page
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(min(wanted, memory // 4), 2 * bytes_of_page)
