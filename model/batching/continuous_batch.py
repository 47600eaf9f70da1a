"""Continuous batching: one forward pass after the other over whatever is due.

Tensor names: B rows of a pass, P its columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import torch

from ..cache.kv_cache import KVCache
from ..cache.page_pool import PAGE, pages_of
from ..cache.sequence_pages import SequencePages
from ..generation.chooser import NOT_NUMBERS, choose
from ..hooks.captures import Captures
from ..text.prompts import left_pad
from .batched_model import BatchedModel
from .plan import Share, passes, plan
from .queues import Queues
from .replay import has_room, recomputed_from, replay
from .row import FinishReason, R, Row


@dataclass
class Counts:
    """Counts that only grow.

    Attributes:
        steps: Steps that ran anything.
        passes: Passes that ended well.
        tokens: Tokens that they ran on, prompts' included.
        replayed: Tokens whose keys and values were there, and that ran again for whoever watches
            them.
        preemptions: Rows that gave up their pages to older ones.
    """

    steps: int = 0
    passes: int = 0
    tokens: int = 0
    replayed: int = 0
    preemptions: int = 0


class ContinuousBatch(Generic[R]):
    """Runs rows in steps. They join and leave at any of them, and no row's tokens depend on who
    runs beside it. One thread at a time.

    Attributes:
        queues: Rows that wait and that run.
        counts: What was done so far.
    """

    def __init__(
        self, model: BatchedModel, pages: SequencePages, *, max_running: int, token_budget: int
    ) -> None:
        """`max_running`: rows at a time; `token_budget`: tokens a step runs on."""
        self.model, self.pages = model, pages
        self._max_running, self._budget = max_running, token_budget
        self.queues: Queues[R] = Queues()
        self.counts = Counts()
        self._cached: tuple[list[R], KVCache] | None = None

    def step(self) -> bool:
        """Runs one step; returns False if there was nothing to do.

        Raises what a row's `finish` raises, and whatever is no Exception.
        """
        self._admit()
        shares = plan(self.queues.running, self._budget)
        for batch in passes(shares):
            # Less those that gave up their pages, or were ended, in a pass before this one.
            self._run([share for share in batch if share[0].held is not None])
        self.counts.steps += bool(shares)
        return bool(shares)

    def end(self, row: R, reason: FinishReason, error: Exception | None = None) -> None:
        """Ends a row, wherever it is, unless a function of its own did so in the meantime."""
        if row.is_finished:
            return
        self.queues.remove(row)
        if row.held is not None and row.n_cached is not None:
            row.n_written = min(row.length, len(row.sequence.prompt)) - row.n_cached
        self._leave(row, keeps=error is None)
        row.finish(reason, error)

    def begin_again(self) -> None:
        """Has every running row compute its tokens again: how far a step came is unknown."""
        for row in reversed(self.queues.running.copy()):
            self._preempt(row, keeps=False)

    # Who runs

    def _admit(self) -> None:
        """Gives waiting rows pages, in order, as long as there is room for their tokens."""
        queues, pages = self.queues, self.pages
        while queues.waiting and len(queues.running) < self._max_running:
            row = queues.waiting[0]
            until, salt = recomputed_from(row, self.model.config.n_layers), row.salt
            if queues.running:
                known = pages.match(row.tokens, salt=salt) if until != 0 else 0
                if not self._has_room(row, known if until is None else min(known, until)):
                    return
            row.held = pages.hold(row.tokens, salt=salt, observed_from=until)
            if row.n_cached is None:
                row.n_cached = row.length
            queues.run(queues.waiting.popleft())

    def _has_room(self, row: R, known: int) -> bool:
        """Whether a row of which so many tokens are known may run beside the others."""
        needed = pages_of(row.n_tokens + 1) - known // PAGE + 1
        promised = sum(each.n_missing_pages(each.n_tokens + 1) for each in self.queues.running)
        return self.pages.pool.can_take(promised + needed)

    def _fork(self, row: R) -> list[R]:
        """Has the rows that waited for a row's prompt go on from its pages; returns those that are
        so far as to choose a token with it."""
        others, joined = self.queues.siblings.pop(row, []), []
        assert row.held is not None
        for other in others:
            has_place = len(self.queues.running) < self._max_running
            if other.is_observed or not has_place or not self._has_room(other, row.length):
                self.pages.keep(row.held, row.sequence.prompt)
                break
            other.held = self.pages.fork(row.held)
            other.n_cached = other.length
            self.queues.run(other)
            joined.append(other)
        self.queues.free(others[len(joined) :])
        return joined

    def _make_room(self, batch: list[Share[R]]) -> list[Share[R]]:
        """Has the youngest rows give up their pages until the others' tokens fit."""
        while self.pages.pool.capacity is not None:
            needed = sum(row.n_missing_pages(row.length + n) + 1 for row, n in batch)
            if self.pages.pool.can_take(needed) or len(self.queues.running) == 1:
                break
            youngest = self.queues.running[-1]
            self._preempt(youngest)
            batch = [(row, n) for row, n in batch if row is not youngest]
        return batch

    def _preempt(self, row: R, *, keeps: bool = True) -> None:
        self._leave(row, keeps=keeps)
        self.queues.running.remove(row)
        self.queues.waiting.appendleft(row)
        row.forget_captures()
        self.counts.preemptions += 1

    def _leave(self, row: R, *, keeps: bool = True) -> None:
        """Takes a row's pages from it; the cache `keeps` what is in them, if there is one."""
        if row.held is not None:
            if keeps:
                self.pages.keep(row.held, row.tokens)
            self.pages.release(row.held)
        row.held, self._cached = None, None

    # A pass

    def _run(self, batch: list[Share[R]]) -> None:
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
                self.end(row, "error", error)
            return
        self.counts.tokens += sum(n for _, n in batch)
        for row in rows:
            held = row.held
            if held is not None and held.has_news and self.pages.seal(held, row.tokens):
                self._cached = None  # its page table names pages that were given back
        if found:
            self._show(batch, found)
        due = [i for i, row in enumerate(rows) if row.held is not None and row.n_unread == 0]
        if due:
            self._choose([rows[i] for i in due], _rows_of(logits_BV, due))

    def _pass(self, batch: list[Share[R]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Logits [B, V] of each row's last token in the pass, and what rows want to see."""
        new, mask_BP = [row.next_tokens(n) for row, n in batch], None
        if max(n for _, n in batch) > 1:
            tokens_BP, mask_BP = left_pad(new, 0)
        else:
            tokens_BP = torch.tensor(new, dtype=torch.int64, device="cpu")
        names = [row.observed_names for row, _ in batch if row.is_observed]
        captures = Captures(frozenset().union(*names))
        logits_BV = self.model.forward_last_slice(
            tokens_BP, mask_BP, self.cache_of([row for row, _ in batch]), captures
        )
        self.counts.passes += 1
        return logits_BV, captures.found

    def cache_of(self, rows: Sequence[R]) -> KVCache:
        """Returns running rows' keys and values as one cache, the last one where the rows are the
        same."""
        if self._cached is None or self._cached[0] != rows:
            held = [row.held.sequence for row in rows if row.held is not None]
            self._cached = list(rows), self.pages.over(held)
        return self._cached[1]

    def _choose(self, rows: list[R], logits_BV: torch.Tensor) -> None:
        """Gives rows, and those that waited for their prompts, their next tokens, in order."""
        if self.queues.siblings:
            forks = [(other, i) for i, row in enumerate(rows) for other in self._fork(row)]
            every = sorted([*zip(rows, range(len(rows)), strict=True), *forks], key=_place)
            rows, logits_BV = [row for row, _ in every], logits_BV[[i for _, i in every]]
        tokens = choose([row.chooser for row in rows], [row.sequence for row in rows], logits_BV)
        for row in [row for row, token in zip(rows, tokens, strict=True) if token < 0]:
            self.end(row, "error", ValueError(NOT_NUMBERS))
        for row, token in zip(rows, tokens, strict=True):
            if not row.is_finished:
                self._advance(row, token)

    def _advance(self, row: R, token: int) -> None:
        try:
            text = row.chooser.advance(row.sequence, token)
        except Exception as error:
            self.end(row, "error", error)
            return
        if row.is_finished:  # its stop function cancelled it
            return
        row.write(token, text)
        if row.is_over:
            self._end_over(row)

    def _end_over(self, row: R, failure: Exception | None = None) -> None:
        reason = row.sequence.ended or "length"
        self.end(row, "error" if failure is not None else reason, failure)

    # Who watches

    def _show(self, batch: list[Share[R]], found: Mapping[str, torch.Tensor]) -> None:
        """Shows what a pass found to whoever asked; ends rows that are over with it."""
        width = max(n for _, n in batch)
        for b, (row, n) in enumerate(batch):
            if row.held is None or not row.is_observed or not row.observed_names:
                continue
            own = found
            if len(batch) > 1:
                own = {name: found[name][b : b + 1, width - n :] for name in row.observed_names}
            self._show_row(row, row.length - n, n, own)

    def _show_row(self, row: R, start: int, n: int, found: Mapping[str, torch.Tensor]) -> None:
        failure = None
        try:
            row.observe(start, n, found)
        except Exception as error:
            failure = error
        if failure or row.is_over:
            self._end_over(row, failure)

    def _look_again(self, row: R, n: int) -> None:
        """Shows n tokens whose keys and values are there; without room, they are computed anew."""
        start = row.observed_from
        assert start is not None
        if not has_room(self.pages, n):
            self._take_less(row, start)
            return
        try:
            found = replay(self.model, self.pages, row, n)
        except Exception as error:
            self.end(row, "error", error)
            return
        self.counts.replayed += n
        row.note_replayed(start + n)
        self._show_row(row, start, n, found)

    def _take_less(self, row: R, start: int) -> None:
        """Has a row hold nothing from `start` on."""
        assert row.held is not None
        self.pages.release(row.held)
        row.held = self.pages.hold(row.tokens, salt=row.salt, observed_from=start)
        row.n_cached, self._cached = min(row.n_cached or 0, row.length), None


def _rows_of(logits_BV: torch.Tensor, rows: list[int]) -> torch.Tensor:
    return logits_BV if len(rows) == len(logits_BV) else logits_BV[rows]


def _place(share: tuple[Row, int]) -> int:
    return share[0].place
