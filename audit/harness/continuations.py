"""Log-probabilities of continuations, whose contexts come from a prefix cache where they are known.

Tensor names: B rows of a pass, P its columns, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from ...model.cache.kv_cache import KVCache
from ...model.cache.page_pool import pages_of
from ...model.cache.prefix_cache import PrefixCache
from ...model.cache.sequence_pages import HeldPrompt
from ...model.gradients.token_logprob import token_logprob
from ...model.sampling.greedy import greedy
from ...model.transformer import HookedTransformer

PASS_TOKENS = 512
"""Tokens of a pass over all of its rows: bounds the logits in memory."""


@dataclass(frozen=True)
class Continuation:
    """Tokens to score, after those of a context, neither of them empty."""

    context: Sequence[int]
    tokens: Sequence[int]

    @property
    def read(self) -> list[int]:
        """Returns what the model reads for it: all but the last token."""
        return [*self.context, *self.tokens[:-1]]


@dataclass(frozen=True)
class ContinuationScore:
    """The score of one continuation.

    Attributes:
        logprobs: Natural logarithm of each token's probability, as `model.logprobs` gives it.
        is_greedy: Whether `model.generate` would write these tokens at temperature 0.
    """

    logprobs: list[float]
    is_greedy: bool

    @property
    def total(self) -> float:
        """Returns the sum, rounded once."""
        return math.fsum(self.logprobs)


@dataclass(eq=False)
class _Row:
    """One sequence under way: `read` is run, logits from `scored_from` on are kept."""

    read: list[int]
    held: HeldPrompt
    scored_from: int
    tokens: Sequence[int] = ()
    logprobs: list[float] = field(default_factory=list)
    is_greedy: bool = True

    @property
    def length(self) -> int:
        return self.held.sequence.length


class ContinuationScorer:
    """Scores continuations in batches. Neither batches nor the cache move a bit of a score."""

    def __init__(self, model: HookedTransformer, cache: PrefixCache, batch_size: int) -> None:
        """Raises ValueError for a batch size below 1."""
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: expected at least 1")
        self._model, self._cache, self._batch_size = model, cache, batch_size

    @torch.no_grad()
    def score(
        self,
        continuations: Sequence[Continuation],
        *,
        done: Callable[[int], object] = lambda n: None,
    ) -> list[ContinuationScore]:
        """Returns the score of each, in their order; calls `done` with the size of each batch.

        Raises ValueError for an empty context or continuation, one that the cache has no room
        for, and logits that are no numbers.
        """
        for each in continuations:
            self._check(each)
        # Those that share their beginning follow each other, before the cache gives it up.
        order = sorted(
            range(len(continuations)),
            key=lambda i: (list(continuations[i].context), list(continuations[i].tokens)),
        )
        found: dict[int, ContinuationScore] = {}
        for batch in self._batches(order, continuations):
            chosen = [continuations[i] for i in batch]
            self._read_contexts(chosen)
            found |= zip(batch, self._score(chosen), strict=True)
            done(len(batch))
        return [found[i] for i in range(len(continuations))]

    def _check(self, each: Continuation) -> None:
        if not each.context or not each.tokens:
            raise ValueError(
                f"a continuation of {len(each.tokens)} tokens after {len(each.context)}: expected "
                "at least one of each"
            )
        n, capacity = _n_pages(each), self._cache.pool.capacity
        if capacity is not None and n > capacity:
            raise ValueError(
                f"a continuation and its context need {n} pages, the cache has {capacity}: give it "
                "more cache_bytes"
            )

    def _batches(
        self, order: Sequence[int], continuations: Sequence[Continuation]
    ) -> Iterator[list[int]]:
        """Yields as many at a time as the cache has pages for."""
        batch: list[int] = []
        n_pages = 0
        for i in order:
            n, capacity = _n_pages(continuations[i]), self._cache.pool.capacity
            is_full = capacity is not None and n_pages + n > capacity
            if batch and (is_full or len(batch) == self._batch_size):
                yield batch
                batch, n_pages = [], 0
            batch.append(i)
            n_pages += n
        if batch:
            yield batch

    def _read_contexts(self, batch: Sequence[Continuation]) -> None:
        """Runs each context once, all but its last token, and has the cache keep it."""
        if self._cache.key() is None:
            return  # hooks or overrides run: nothing may be kept
        contexts = {tuple(each.context) for each in batch if len(each.context) > 1}
        rows: list[_Row] = []
        try:
            for context in sorted(contexts):
                held = self._cache.hold(context)
                rows.append(_Row(list(context[:-1]), held, len(context)))
            edits = self._run(rows)
            for row in rows:
                if row.held.key is not None and edits <= {row.held.key.edits}:
                    self._cache.keep(row.held, row.read)
        finally:
            self._release(rows)

    def _score(self, batch: Sequence[Continuation]) -> list[ContinuationScore]:
        rows: list[_Row] = []
        try:
            for each in batch:
                first = len(each.context) - 1
                held = self._cache.hold(each.read, observed_from=first)
                rows.append(_Row(each.read, held, first, each.tokens))
            self._run(rows)
        finally:
            self._release(rows)
        return [ContinuationScore(row.logprobs, row.is_greedy) for row in rows]

    def _release(self, rows: Sequence[_Row]) -> None:
        for row in rows:
            self._cache.release(row.held)

    def _run(self, rows: Sequence[_Row]) -> set[str | None]:
        """Runs rows to their ends, some columns at a time; returns what edited the passes."""
        edits: set[str | None] = set()
        while due := [row for row in rows if row.length < len(row.read)]:
            starts = [row.length for row in due]
            sequences = [row.held.sequence for row in due]
            cache = KVCache.over(self._model.config, self._cache.pool, sequences)
            new = [row.read[row.length :][: max(1, PASS_TOKENS // len(due))] for row in due]
            wants = any(
                s + len(n) > r.scored_from for s, n, r in zip(starts, new, due, strict=True)
            )
            logits_BPV = self._pass(new, cache, wants)
            edits |= cache.edits
            for b, (row, start) in enumerate(zip(due, starts, strict=True)):
                first = max(row.scored_from - start, 0)
                if first < len(new[b]):
                    _add(row, start + first, logits_BPV[b, first : len(new[b])])
        return edits

    def _pass(self, new: Sequence[Sequence[int]], cache: KVCache, wants: bool) -> torch.Tensor:
        width = max(map(len, new))
        tokens_BP = torch.zeros(len(new), width, dtype=torch.int64, device="cpu")
        for b, ids in enumerate(new):
            tokens_BP[b, : len(ids)] = torch.tensor(ids, dtype=torch.int64, device="cpu")
        counts = torch.tensor([len(ids) for ids in new], device="cpu")
        mask_BP = (torch.arange(width, device="cpu") < counts[:, None]).long()
        logits_BPV: torch.Tensor = self._model(
            tokens_BP, mask_BP, kv_cache=cache, return_type="logits" if wants else None
        )
        return logits_BPV


def _n_pages(each: Continuation) -> int:
    """Pages it needs, with the copy of a partly filled one."""
    return pages_of(len(each.read)) + 1


def _add(row: _Row, position: int, logits_PV: torch.Tensor) -> None:
    """Adds the scores of the tokens that follow `position` and so on."""
    first = position - row.scored_from
    tokens = list(row.tokens[first : first + len(logits_PV)])
    logits_PV = logits_PV.float().cpu()
    best = [greedy(logits_V) for logits_V in logits_PV.numpy()]
    if -1 in best:
        raise ValueError(f"the logits after position {position} are no numbers")
    ids_P = torch.tensor(tokens, dtype=torch.int64, device="cpu")
    row.logprobs += token_logprob(logits_PV, ids_P).tolist()
    row.is_greedy &= best == tokens
