"""A trace replayed under prices: what is found in the cache, and the bill with it and without."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from .prices import Prices
from .trace import TracedRequest

_MILLION = 1e6


@dataclass(frozen=True)
class Served:
    """The tokens of one request by how they are paid for.

    Attributes:
        read: From the cache.
        written: Computed, and kept for later requests.
        plain: Computed, and not kept.
        output: Of the answer.
    """

    read: int
    written: int
    plain: int
    output: int

    @property
    def prompt(self) -> int:
        return self.read + self.written + self.plain


@dataclass(frozen=True)
class Replay:
    """A trace's requests as they would be served, and their bill in dollars."""

    requests: tuple[Served, ...]
    prices: Prices

    @property
    def hits(self) -> int:
        """Requests of which a beginning was found."""
        return sum(each.read > 0 for each in self.requests)

    def total(self, what: str) -> int:
        """Returns the sum of one of `Served`'s counts."""
        return sum(getattr(each, what) for each in self.requests)

    @property
    def bill(self) -> float:
        """The price of all requests with the cache."""
        prices = self.prices
        prompts = self.total("plain") + prices.read * self.total("read")
        prompts += prices.write * self.total("written")
        return (prices.input * prompts + prices.output * self.total("output")) / _MILLION

    @property
    def bill_without(self) -> float:
        """The price of the same requests without one."""
        prices = self.prices
        tokens = prices.input * self.total("prompt") + prices.output * self.total("output")
        return tokens / _MILLION


def replay(requests: Sequence[TracedRequest], prices: Prices) -> Replay:
    """Serves a trace from a cache that finds the longest common beginning, to the token.

    A prompt is kept up to `keep` tokens, if these are as many as `prices.minimum`, until `ttl`
    seconds have passed since it was used; what of it is found is used again. The last token of a
    prompt is always computed.
    """
    kept: dict[str, _Kept] = {}
    served = []
    for request in requests:
        keep = request.keep if request.keep >= prices.minimum else 0
        cache = kept.setdefault(request.salt, _Kept(prices.ttl))
        found = cache.longest(request.ids, request.time)
        found = min(found, len(request.ids) - 1)
        read = found if found >= prices.minimum else 0
        if max(keep, read):
            cache.add(request.ids[: max(keep, read)], request.time)
        written = max(keep - read, 0)
        served.append(Served(read, written, len(request.ids) - read - written, request.output))
    return Replay(tuple(served), prices)


@dataclass
class _Kept:
    """The prompts of one salt, sorted: the nearest neighbours share the longest beginnings."""

    ttl: float
    _prompts: list[tuple[int, ...]] = field(default_factory=list)
    _until: dict[tuple[int, ...], float] = field(default_factory=dict)

    def longest(self, ids: tuple[int, ...], now: float) -> int:
        """Returns the length of the longest beginning of `ids` that is kept."""
        self._expire(now)
        at = bisect.bisect(self._prompts, ids)
        return max(
            (_common(ids, each) for each in self._prompts[max(at - 1, 0) : at + 1]), default=0
        )

    def add(self, ids: tuple[int, ...], now: float) -> None:
        """Keeps these tokens, or keeps them for longer."""
        if ids not in self._until:
            bisect.insort(self._prompts, ids)
        self._until.pop(ids, None)  # what is kept for longest stands last
        self._until[ids] = now + self.ttl

    def _expire(self, now: float) -> None:
        while self._until and (first := next(iter(self._until.items())))[1] <= now:
            del self._until[first[0]]
            del self._prompts[bisect.bisect_left(self._prompts, first[0])]


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])
