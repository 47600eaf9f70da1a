"""Continuous batching: requests join and leave at any step.

Tensor names: B rows of a pass, P its columns, V vocabulary.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from threading import RLock
from types import TracebackType
from typing import Self

import torch

from ..cache.kv_cache import KVCache
from ..cache.page_pool import PAGE, pages_of
from ..cache.prefix_cache import CacheableModel, PrefixCache, kept_page_bytes
from ..generation.chooser import NOT_NUMBERS, choose
from ..hooks.captures import Captures
from .clock import SharedClock
from .counts import Counts, EngineStats
from .fingerprint import pool_fingerprint
from .handle import Handle
from .intake import Intake, ServedModel
from .plan import Share, passes, plan
from .queues import Queues
from .replay import has_room, recomputed_from, replay
from .request import EngineFull, FinishReason, ModelIsWatched, Request, WrongPool
from .row import Row


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
        self._max_running, self._budget, self._max_waiting = max_running, token_budget, max_waiting
        self._queues, self._counts = Queues(), Counts()
        capacity = self.cache.pool.capacity
        self._intake = Intake(self, model, self._clock.now, capacity)
        self._inbox: deque[list[Row]] = deque()
        self._batch: tuple[list[Row], KVCache] | None = None
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
        n_waiting = len(self._queues.waiting) + len(self._inbox)
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
                self._begin_again()
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
                for row in self._queues.all():
                    if row.handle is handle:
                        self._end(row, "cancelled")
            finally:
                self._lock.release()

    def stats(self) -> EngineStats:
        """Returns counts since the beginning, and what is under way."""
        with self._lock:
            self._open_inbox()
            queues, counts = self._queues, self._counts
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
            for row in self._queues.all():
                self._end(row, "cancelled")
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
            self._queues.waiting.append(first)
            if others:
                self._queues.siblings[first] = others

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")

    # A step

    def _step(self) -> bool:
        self._open_inbox()
        now, cancelled = self._clock.tick()
        for row in self._queues.all():
            if row.handle.number in cancelled:
                self._end(row, "cancelled")
            elif row.request.deadline is not None and row.request.deadline <= now:
                self._end(row, "deadline")
        self._admit()
        shares = plan(self._queues.running, self._budget)
        for batch in passes(shares):
            # Less those that gave up their pages, or were cancelled, in a pass before this one.
            self._run([share for share in batch if share[0].held is not None])
        self._counts.steps += bool(shares)
        return bool(shares or self._inbox)

    def _admit(self) -> None:
        """Gives waiting rows pages, in order, as long as there is room for their tokens."""
        queues = self._queues
        while queues.waiting and len(queues.running) < self._max_running:
            row = queues.waiting[0]
            until, salt = recomputed_from(row, self.model.config.n_layers), row.request.salt
            if queues.running:
                known = self.cache.match(row.tokens, salt=salt) if until != 0 else 0
                known = known if until is None else min(known, until)
                needed = pages_of(row.n_tokens + 1) - known // PAGE + 1
                promised = sum(each.n_missing_pages(each.n_tokens + 1) for each in queues.running)
                if not self.cache.pool.can_take(promised + needed):
                    return
            row.held = self.cache.hold(row.tokens, salt=salt, observed_from=until)
            if row.n_cached is None:
                row.n_cached = row.length
            queues.running.append(queues.waiting.popleft())

    def _run(self, batch: list[Share]) -> None:
        """Runs a pass over these rows, less those that must give up their pages for it."""
        if batch and batch[0][0].n_unseen > 0:
            self._look_again(*batch[0])
            return
        batch = self._make_room(batch)
        if not batch:
            return
        rows = [row for row, _ in batch]
        try:
            logits_BV, found = self._pass(batch)
        except Exception as error:
            for row in rows:
                self._end(row, "error", error)
            return
        self._counts.tokens += sum(n for _, n in batch)
        for row in rows:
            held = row.held
            if held is not None and held.has_news and self.cache.seal(held, row.tokens):
                self._batch = None  # its page table names pages that were given back
        self._show(batch, found)
        due = [i for i, row in enumerate(rows) if row.held is not None and row.n_unread == 0]
        if due:
            self._choose([rows[i] for i in due], logits_BV[due])

    def _show(self, batch: list[Share], found: Mapping[str, torch.Tensor]) -> None:
        """Shows what a pass found to whoever asked; ends rows that are over with it."""
        for b, (row, n) in enumerate(batch):
            if row.held is None or not row.is_observed or not row.observed_names:
                continue
            own = found
            if len(batch) > 1:
                own = {name: found[name][b : b + 1, :n] for name in row.observed_names}
            self._show_row(row, row.length - n, n, own)

    def _show_row(self, row: Row, start: int, n: int, found: Mapping[str, torch.Tensor]) -> None:
        failure = None
        try:
            row.observe(start, n, found)
        except Exception as error:
            failure = error
        if failure or row.is_over:
            self._end_over(row, failure)

    def _look_again(self, row: Row, n: int) -> None:
        """Shows n tokens whose keys and values are there; without room, they are computed anew."""
        start = row.observed_from
        assert start is not None
        if not has_room(self.cache, n):
            self._take_less(row, start)
            return
        try:
            found = replay(self.model, self.cache, row, n)
        except Exception as error:
            self._end(row, "error", error)
            return
        self._counts.replayed += n
        row.note_replayed(start + n)
        self._show_row(row, start, n, found)

    def _take_less(self, row: Row, start: int) -> None:
        """Has a row hold nothing from `start` on."""
        assert row.held is not None
        self.cache.release(row.held)
        row.held = self.cache.hold(row.tokens, salt=row.request.salt, observed_from=start)
        row.n_cached, self._batch = min(row.n_cached or 0, row.length), None

    def _make_room(self, batch: list[Share]) -> list[Share]:
        """Has the youngest rows give up their pages until the others' tokens fit."""
        while True:
            needed = sum(row.n_missing_pages(row.length + n) + 1 for row, n in batch)
            if self.cache.pool.can_take(needed) or len(self._queues.running) == 1:
                return batch
            youngest = self._queues.running[-1]
            self._preempt(youngest)
            batch = [(row, n) for row, n in batch if row is not youngest]

    def _begin_again(self) -> None:
        """Has every running row compute its tokens again: how far a step came is unknown."""
        for row in reversed(self._queues.running.copy()):
            self._preempt(row, keeps=False)

    def _preempt(self, row: Row, *, keeps: bool = True) -> None:
        self._leave(row, keeps=keeps)
        self._queues.running.remove(row)
        self._queues.waiting.appendleft(row)
        row.forget_captures()
        self._counts.preemptions += 1

    def _pass(self, batch: list[Share]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Logits [B, V] of each row's last token in the pass, and what rows want to see."""
        width, mask_BP = max(n for _, n in batch), None
        new = [[*row.next_tokens(n), *[0] * (width - n)] for row, n in batch]
        tokens_BP = torch.tensor(new, dtype=torch.int64, device="cpu")
        if width > 1:
            counts = torch.tensor([n for _, n in batch], device="cpu")
            mask_BP = (torch.arange(width, device="cpu") < counts[:, None]).long()
        names = [row.observed_names for row, _ in batch if row.is_observed]
        captures = Captures(frozenset().union(*names))
        logits_BV = self.model.forward_last_slice(
            tokens_BP, mask_BP, self._cache_of(batch), captures
        )
        return logits_BV, captures.found

    def _cache_of(self, batch: list[Share]) -> KVCache:
        """The rows' keys and values as one cache, the last one where the rows are the same."""
        rows = [row for row, _ in batch]
        if self._batch is None or self._batch[0] != rows:
            held = [row.held.sequence for row in rows if row.held is not None]
            self._batch = rows, KVCache.over(self.model.config, self.cache.pool, held)
        return self._batch[1]

    def _choose(self, rows: list[Row], logits_BV: torch.Tensor) -> None:
        tokens = choose([row.chooser for row in rows], [row.sequence for row in rows], logits_BV)
        for row, token in zip(rows, tokens, strict=True):
            self._release_siblings(row)
            try:
                if token < 0:
                    raise ValueError(NOT_NUMBERS)
                text = row.chooser.advance(row.sequence, token)
            except Exception as error:
                self._end(row, "error", error)
                continue
            if row.is_finished:  # its stop function cancelled it
                continue
            row.write(token, text)
            if row.is_over:
                self._end_over(row)

    def _end_over(self, row: Row, failure: Exception | None = None) -> None:
        reason = row.sequence.ended or "length"
        self._end(row, "error" if failure is not None else reason, failure)

    def _release_siblings(self, row: Row) -> None:
        """Lets the other samples of a request go on from its first one's pages."""
        others = self._queues.siblings.pop(row, [])
        if others and row.held is not None:
            self.cache.keep(row.held, row.sequence.prompt)
        self._queues.waiting.extendleft(reversed(others))

    def _leave(self, row: Row, *, keeps: bool = True) -> None:
        """Gives a row's pages to the cache, which `keeps` what is in them."""
        if row.held is not None:
            if keeps:
                self.cache.keep(row.held, row.tokens)
            self.cache.release(row.held)
        row.held, self._batch = None, None

    def _end(self, row: Row, reason: FinishReason, error: Exception | None = None) -> None:
        """Ends a row, wherever it is, unless a function of its own did so in the meantime."""
        if row.is_finished:
            return
        self._queues.remove(row)
        if row.held is not None and row.n_cached is not None:
            row.n_written = min(row.length, len(row.sequence.prompt)) - row.n_cached
        self._leave(row, keeps=error is None)
        row.finish(reason, error)


def default_cache_bytes(model: CacheableModel, max_running: int) -> int:
    """Returns the bytes of `max_running` sequences of the whole context, at most a quarter of the
    machine's memory."""
    bytes_of_page = kept_page_bytes(model)
    wanted = max_running * (pages_of(model.config.n_ctx) + 1) * bytes_of_page
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(min(wanted, memory // 4), 2 * bytes_of_page)
