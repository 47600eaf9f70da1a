"""The algorithm of one rank (docs/sampling.md), as a generator of rounds.

Array names: N ranks, B rows, R a subset of rows, C candidates. Everything a rank decides after a
round is a function of what all ranks sent, so all decide alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from .batch import DIGESTED, VOCAB_LIMIT, Batch
from .groups import RankError, Rounds, gather
from .radix import Kept, descend, thresholds
from .shard import CHOICE, I64, NO_TOKEN, U32, U64, Bools, Shard, logprobs, order_of, x_of
from .typical import TypicalShard, centres_and_masses, last_kept

Path = Literal["auto", "verify", "radix"]

LISTED_K = 1024
"""Up to this top_k, ranks exchange their first k tokens."""
CANDIDATES = 8
"""Best perturbed tokens that a rank offers for a nucleus."""
VERIFIED = 4
"""Candidates verified in a round."""
NO_LIMIT = np.uint64(2**64 - 1)
NO_CAP = 2**32
FAILED = -1


Prepare = Callable[
    [torch.Tensor, int, Batch], tuple[Shard, npt.NDArray[np.float32], npt.NDArray[np.uint8]]
]
"""`Shard.prepare`, where the logits are."""


@dataclass(frozen=True)
class Request:
    """One rank's part of a batch."""

    logits: torch.Tensor
    first_id: int
    batch: Batch
    vocab_size: int | None
    path: Path
    certify: bool
    prepare: Prepare = Shard.prepare

    @property
    def verifies(self) -> bool:
        """Whether candidates are tried before the last kept token is looked for."""
        return self.path == "verify" or (self.path == "auto" and not self.certify)


@dataclass
class Outcome:
    """All rows' [B] chosen keys (0: not valid), what a certificate needs, and best tokens."""

    choices: npt.NDArray[np.void]
    totals: U64
    x_max: npt.NDArray[np.float32]
    logprobs: npt.NDArray[np.float32]
    top_keys: U64
    top_logprobs: npt.NDArray[np.float32]


@dataclass
class _State:
    """What a rank has found so far."""

    request: Request
    shard: Shard
    valid: Bools
    id_order: I64
    rank: int
    totals: U64
    kept_totals: U64  # after min_p
    choices: npt.NDArray[np.void]

    def where(self, rows: Bools) -> I64:
        return np.flatnonzero(rows & self.valid).astype(np.int64)


def failed_rank() -> Rounds[None]:
    """A rank whose arguments were wrong: tells the others, who raise RankError."""
    yield from gather(np.zeros(len(DIGESTED), dtype=np.uint64), np.full(2, FAILED, dtype=np.int64))


def rank_rounds(request: Request) -> Rounds[Outcome]:
    """Samples a batch. Raises RankError where the ranks do not fit together."""
    state = yield from _start(request)
    rows, params = state.shard.rows, request.batch.params
    top_k, filtered, typical = rows["top_k"], rows["top_p"] < 1, rows["typical_p"] < 1
    asked = np.array([-1 if p.logprobs is None else p.logprobs for p in params], dtype=np.int64)
    is_listed = (top_k > 0) & (top_k <= LISTED_K)
    listed, unlisted = state.where(is_listed), state.where(~is_listed)
    need_total = (asked >= 0) | request.certify | (filtered & (rows["joint"] == 1)) | ~is_listed
    widths = np.where(is_listed, np.maximum(top_k, asked), np.maximum(asked, 0)).astype(np.int64)
    merged, scored = yield from _first_exchange(state, need_total, widths, unlisted, asked > 0)

    keys = np.ascontiguousarray(merged[listed])
    state.choices[listed] = state.shard.choose(listed, keys, state.kept_totals[listed])
    state.choices["key"][unlisted] = scored["key"][:, 0]
    narrowed = state.where(~is_listed & ~typical & (filtered | (top_k > 0) | request.certify))
    if len(narrowed):
        candidates = scored["key"][np.isin(unlisted, narrowed)]
        yield from _narrow(state, narrowed, candidates)
    if len(typical_rows := state.where(~is_listed & typical)):
        yield from _typical(state, typical_rows)
    return _outcome(state, asked, merged)


def _start(request: Request) -> Rounds[_State]:
    """Rounds 0 and 1: do the ranks fit together; every row's maximum."""
    batch = request.batch
    options = (request.vocab_size, request.path, request.certify, str(request.logits.dtype))
    bounds = np.array([request.first_id, request.first_id + request.logits.shape[1]])
    digests, all_bounds = yield from gather(batch.digests(*options), bounds)
    _check_agreement(digests, all_bounds)
    starts, stops = all_bounds.T
    vocab_size = int(stops.max()) if request.vocab_size is None else request.vocab_size
    _check_tiling(starts, stops, vocab_size)
    n = max(0, min(vocab_size - request.first_id, request.logits.shape[1]))
    shard, maximum, bad = request.prepare(request.logits[:, :n], request.first_id, batch)
    all_max, all_bad = yield from gather(order_of(maximum), bad)
    order = all_max.max(axis=0)
    shard.rows["x_max"] = x_of(order.astype(np.uint64) << np.uint64(32))
    shard.rows["top_k"][shard.rows["top_k"] >= vocab_size] = 0
    shard.rows["top_k"][[p.greedy for p in batch.params]] = 1  # of a vocabulary of one, too
    state = _State(
        request=request,
        shard=shard,
        valid=~all_bad.any(axis=0) & (order > NO_TOKEN),
        id_order=np.lexsort((stops, starts)),
        rank=int(np.flatnonzero((all_bounds == bounds).all(axis=1))[0]),
        totals=np.zeros(len(batch), dtype=np.uint64),
        kept_totals=np.zeros(len(batch), dtype=np.uint64),
        choices=np.zeros(len(batch), dtype=CHOICE),
    )
    return state


def _check_agreement(digests: U64, bounds: I64) -> None:
    failed = np.flatnonzero(bounds[:, 1] == FAILED)
    if len(failed):
        raise RankError(f"rank {failed[0]} could not start; its own error says why")
    for what, column in zip(DIGESTED, digests.T, strict=True):
        if (different := np.flatnonzero(column != column[0])).size:
            raise RankError(f"ranks 0 and {different[0]} disagree about {what}")


def _check_tiling(starts: I64, stops: I64, vocab_size: int) -> None:
    at = 0
    for rank in np.lexsort((stops, starts)):
        start, stop = int(starts[rank]), int(stops[rank])
        if start == stop:
            continue
        if start != at:
            problem = "are held twice" if start < at else "are missing"
            raise RankError(
                f"ids {min(start, at)} to {max(start, at) - 1} {problem}: rank {rank} holds "
                f"{start} to {stop - 1}; the slices must tile the vocabulary"
            )
        at = stop
    if not 1 <= vocab_size <= at:
        raise RankError(f"vocab_size = {vocab_size}, but the slices hold {at} ids")
    if vocab_size >= VOCAB_LIMIT:
        raise RankError(f"a vocabulary of {vocab_size}: sums of weights are exact below 2^20 ids")


def _first_exchange(
    state: _State, need_total: Bools, widths: I64, unlisted: I64, reported: Bools
) -> Rounds[tuple[U64, npt.NDArray[np.void]]]:
    """Round 2: totals, first tokens of rows with a width [B, widest], best scores [R, m].

    Rows whose best tokens are `reported` list them before filters.
    """
    shard = state.shard
    narrowed = (shard.rows["top_p"] < 1) | (shard.rows["top_k"] > 0)
    m = CANDIDATES if narrowed[unlisted].any() else 1
    scored, mass = shard.perturbed_and_mass(unlisted, m)
    others = state.where(need_total & ~np.isin(np.arange(len(need_total)), unlisted))
    other_mass = shard.mass(others)
    lists = state.where(widths > 0)
    width = int(widths[lists].max(initial=0))
    first = shard.top(lists, widths[lists], width, reported)
    sent = np.arange(width) < widths[lists, None]
    all_mass, all_other, all_first, all_scored = yield from gather(
        mass, other_mass, first[sent], scored
    )
    for where, masses in ((unlisted, all_mass), (others, all_other)):
        state.totals[where] = masses["support"].sum(axis=0)
        state.kept_totals[where] = masses["kept"].sum(axis=0)
    n_ranks = len(all_first)
    merged = np.zeros((len(need_total), n_ranks * width), dtype=np.uint64)
    everyone = np.zeros((len(lists), n_ranks, width), dtype=np.uint64)
    everyone.transpose(1, 0, 2)[:, sent] = all_first
    merged[lists] = everyone.reshape(len(lists), n_ranks * width)
    return merged, _best_scored(all_scored, m)


def _best_scored(everyone: npt.NDArray[np.void], m: int) -> npt.NDArray[np.void]:
    """The m best of all ranks [R, m]: larger score, then smaller id."""
    n_ranks, count, width = everyone.shape
    flat = everyone.transpose(1, 0, 2).reshape(count, n_ranks * width)
    ids = ~flat["key"] & np.uint64(0xFFFFFFFF)
    order = np.lexsort((ids, ~flat["score"]), axis=-1)[:, :m]
    return np.take_along_axis(flat, order, axis=-1)


def _narrow(state: _State, rows: I64, candidates: U64) -> Rounds[None]:
    """Chooses in rows with a nucleus or a large top_k; fills in what a certificate needs."""
    shard, request = state.shard, state.request
    limits, caps = yield from _limits_and_caps(state, rows)
    chosen = np.zeros(len(rows), dtype=np.uint64)
    if request.verifies:
        chosen = yield from _verify(shard.before, rows, limits, caps, candidates)
    missed = np.arange(len(rows)) if request.certify else np.flatnonzero(chosen == 0)
    if len(missed):
        kept = yield from _descend(state, rows[missed], limits[missed], caps[missed])
        best, last_ids = yield from _best_kept(shard, rows[missed], kept)
        chosen[missed] = np.where(chosen[missed] == 0, best, chosen[missed])
        at = rows[missed]
        state.choices["kept"][at], state.choices["mass"][at] = kept.count, kept.mass
        state.choices["threshold_key"][at] = _keys(kept.order, last_ids)
    state.choices["key"][rows] = chosen
    if request.certify:
        mass, count = yield from gather(*shard.before(rows, chosen[:, None]))
        state.choices["mass_before"][rows] = mass.sum(axis=0)[:, 0]
        state.choices["rank"][rows] = count.sum(axis=0)[:, 0]


def _limits_and_caps(state: _State, rows: I64) -> Rounds[tuple[U64, I64]]:
    """Kept is what has less mass before it than limit, and fewer tokens than cap [R]."""
    records = state.shard.rows[rows]
    top_k = records["top_k"].astype(np.int64)
    caps = np.where(top_k > 0, top_k, NO_CAP)
    totals = state.kept_totals[rows]
    first_k = (top_k > 0) & (records["top_p"] < 1) & (records["joint"] == 0)
    if first_k.any():
        none = np.full(int(first_k.sum()), NO_LIMIT)
        kept = yield from _descend(state, rows[first_k], none, caps[first_k])
        totals[first_k] = kept.mass
    return _limits(records["top_p"], totals), caps


def _limits(shares: npt.NDArray[np.float32], totals: U64) -> U64:
    """ceil(share * total) for totals > 0: a token is kept while the mass before it is less."""
    limits = []
    for share, total in zip(shares.tolist(), totals.tolist(), strict=True):
        numerator, denominator = share.as_integer_ratio()
        limits.append(-(-numerator * total // denominator))
    return np.array(limits, dtype=np.uint64)


def _typical(state: _State, rows: I64) -> Rounds[None]:
    """Chooses in rows with typical_p: first what the other filters keep, then the typical of it."""
    request, everything = state.request, np.arange(len(rows), dtype=np.int64)
    thresholds_, threshold_keys = yield from _prefix(state, rows)
    kept = state.shard.masked(rows, thresholds_)
    best = kept.perturbed(everything, CANDIDATES)
    all_sums, all_best = yield from gather(kept.typical_sums(everything), best)
    centres, masses = centres_and_masses(all_sums)
    shard = TypicalShard(kept, centres)
    limits = _limits(kept.rows["typical_p"], masses)
    chosen = np.zeros(len(rows), dtype=np.uint64)
    if request.verifies:
        candidates = _best_scored(all_best, CANDIDATES)["key"]
        caps = np.full(len(rows), NO_CAP)
        chosen = yield from _verify(shard.before, everything, limits, caps, candidates)
    missed = everything if request.certify else np.flatnonzero(chosen == 0)
    choices = state.choices
    if len(missed):
        last = yield from last_kept(shard, missed, limits[missed])
        best_kept = shard.until(missed, last.prefix).perturbed(everything[: len(missed)], 1)
        (all_best,) = yield from gather(best_kept)
        best_keys = _best_scored(all_best, 1)["key"][:, 0]
        chosen[missed] = np.where(chosen[missed] == 0, best_keys, chosen[missed])
        at = rows[missed]
        choices["kept"][at], choices["mass"][at] = (
            last.count_before + 1,
            last.mass_before + last.mass,
        )
        choices["typical_key"][at], choices["centre"][at] = last.prefix, centres[missed]
    choices["key"][rows], choices["threshold_key"][rows] = chosen, threshold_keys
    if request.certify:
        mass, count = yield from gather(*shard.before(everything, chosen[:, None]))
        choices["mass_before"][rows] = mass.sum(axis=0)[:, 0]
        choices["rank"][rows] = count.sum(axis=0)[:, 0]


def _prefix(state: _State, rows: I64) -> Rounds[tuple[U64, U64]]:
    """What min-p, top-k and top-p keep: the smallest order key here and that of the last token [R].

    Rows that keep all have no last token unless there is to be a certificate.
    """
    records = state.shard.rows[rows]
    here, last_keys = np.zeros(len(rows), dtype=np.uint64), np.zeros(len(rows), dtype=np.uint64)
    cut = np.flatnonzero((records["top_k"] > 0) | (records["top_p"] < 1) | state.request.certify)
    if len(cut):
        limits, caps = yield from _limits_and_caps(state, rows[cut])
        kept = yield from _descend(state, rows[cut], limits, caps)
        ids = state.shard.nth_tie(rows[cut], kept.order, kept.quota)
        (all_ids,) = yield from gather(np.where(kept.last, ids, np.uint32(0)))
        here[cut] = thresholds(kept, ids)
        last_keys[cut] = _keys(kept.order, all_ids.max(axis=0))
    return here, last_keys


def _keys(order: U32, ids: U32) -> U64:
    return (order.astype(np.uint64) << np.uint64(32)) | (~ids).astype(np.uint64)


def _verify(
    before: Callable[[I64, U64], tuple[U64, U32]],
    rows: I64,
    limits: U64,
    caps: I64,
    candidates: U64,
) -> Rounds[U64]:
    """The first candidate [R, C], by descending score, that is kept; 0 where none is.

    before: Mass and count here ahead of keys of these rows.
    """
    chosen = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, candidates.shape[1], VERIFIED):
        open_ = np.flatnonzero(chosen == 0)
        if not len(open_):
            break
        tried = candidates[open_, start : start + VERIFIED]
        # Rows with fewer tokens than candidates: the best stands in for those missing.
        asked = np.where(tried == 0, candidates[open_, :1], tried)
        mass, count = yield from gather(*before(rows[open_], asked))
        inside = (mass.sum(axis=0) < limits[open_, None]) & (tried != 0)
        inside &= count.sum(axis=0, dtype=np.int64) < caps[open_, None]
        first = inside.argmax(axis=1)
        chosen[open_] = np.where(inside.any(axis=1), tried[np.arange(len(open_)), first], 0)
    return chosen


def _descend(state: _State, rows: I64, limits: U64, caps: I64) -> Rounds[Kept]:
    return (yield from descend(state.shard, rows, limits, caps, state.id_order, state.rank))


def _best_kept(shard: Shard, rows: I64, kept: Kept) -> Rounds[tuple[U64, U32]]:
    """Keys of the best scores among the kept tokens [R], and the ids of the last kept [R]."""
    ids = shard.nth_tie(rows, kept.order, kept.quota)
    best = shard.perturbed(rows, 1, thresholds(kept, ids))
    last = np.where(kept.last, ids, np.uint32(0))
    everyone, last_ids = yield from gather(best, last)
    return _best_scored(everyone, 1)["key"][:, 0], last_ids.max(axis=0)


def _outcome(state: _State, asked: I64, merged: U64) -> Outcome:
    """Log-probabilities of the chosen and of the best tokens, and everything else."""
    size, widest = len(asked), int(asked.max(initial=0))
    x_max = state.shard.rows["x_max"].copy()
    chosen = np.full(size, np.nan, dtype=np.float32)
    at = state.where(asked >= 0)
    chosen[at] = logprobs(state.choices["key"][at], x_max[at], state.totals[at])
    top_keys = np.zeros((size, widest), dtype=np.uint64)
    best = np.sort(merged, axis=1)[:, ::-1][:, :widest]
    wanted = (np.arange(best.shape[1]) < asked[:, None]) & state.valid[:, None]
    top_keys[:, : best.shape[1]] = np.where(wanted, best, 0)
    top = np.full((size, widest), np.nan, dtype=np.float32)
    there = top_keys != 0
    of_row = np.nonzero(there)[0]
    top[there] = logprobs(top_keys[there], x_max[of_row], state.totals[of_row])
    return Outcome(state.choices, state.totals, x_max, chosen, top_keys, top)
