"""The way from a request to the pool whose context holds it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from types import TracebackType
from typing import Self

from .handle import Handle
from .intake import ServedModel, prompt_ids
from .pool import Pool
from .request import Request, WrongPool

MAX_CONVERSATIONS = 1 << 16
"""Conversations that are remembered; of the one that was silent longest, the pool is forgotten."""


@dataclass(frozen=True)
class Route:
    """A request on its way.

    Attributes:
        request: With its prompt as token ids, and the fingerprint of the pool that it is for.
    """

    pool: Pool
    request: Request


class Router:
    """Sends each request to the smallest pool whose context holds it, by the pool's fingerprint.

        with Router([Pool("short", model), Pool("long", long_context(model, 32_768))]) as router:
            print(router.submit(Request(prompt), conversation="one").result().text)

    A conversation stays in its pool until it outgrows it. It then moves, once, by being computed
    again: keys that one RoPE has turned mean nothing to another, and pools share none.

    Attributes:
        pools: In ascending order of context.
        n_moved: Conversations that have changed their pool.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        """Raises ValueError for no pools, and for two that are alike in name, context or bits."""
        self.pools = tuple(sorted(pools, key=lambda pool: pool.context))
        for field in ("name", "context", "fingerprint"):
            if len({getattr(pool, field) for pool in pools}) != len(pools):
                raise ValueError(f"pools: two have the same {field}")
        if len({pool.engine.model.config.d_vocab for pool in pools}) != 1:
            raise ValueError("pools: expected at least one, and one vocabulary")
        self.n_moved = 0
        self._pool_of: OrderedDict[str, Pool] = OrderedDict()
        self._lock = Lock()

    @property
    def model(self) -> ServedModel:
        """The model of the pool of the shortest context, whose tokenizer all have."""
        return self.pools[0].engine.model

    def now(self) -> float:
        """Returns the time of the engines' clock, which deadlines are in."""
        return self.pools[0].engine.now()

    def pool_for(
        self, n_tokens: int, conversation: str | None = None, fingerprint: str | None = None
    ) -> Pool:
        """Returns the pool for so many tokens, the answer's included; nothing is remembered.

        It is the one of this fingerprint, or else the conversation's, if it still fits, or else the
        one of the shortest context that holds them, the longest where none does.

        Raises WrongPool for a fingerprint that no pool has.
        """
        if fingerprint is not None:
            named = next((each for each in self.pools if each.fingerprint == fingerprint), None)
            if named is None:
                here = ", ".join(f"{each.fingerprint} ({each.name})" for each in self.pools)
                raise WrongPool(
                    f"pool_fingerprint: the request is for {fingerprint}, here is {here}: weights, "
                    "policy, RoPE or numerics differ"
                )
            return named
        last = self._pool_of.get(conversation) if conversation is not None else None
        if last is not None and n_tokens <= last.context:
            return last
        return next((each for each in self.pools if n_tokens <= each.context), self.pools[-1])

    def route(self, request: Request, conversation: str | None = None) -> Route:
        """Returns the pool for a request, and the request as that pool takes it.

        Raises WrongPool as `pool_for`, and ValueError for a prompt that is none.
        """
        ids = prompt_ids(request, self.model.tokenizer)
        n_tokens = len(ids) + request.max_new_tokens
        with self._lock:
            pool = self.pool_for(n_tokens, conversation, request.pool_fingerprint)
            if conversation is not None:
                self.n_moved += self._pool_of.get(conversation, pool) is not pool
                self._pool_of[conversation] = pool
                self._pool_of.move_to_end(conversation)
                if len(self._pool_of) > MAX_CONVERSATIONS:
                    self._pool_of.popitem(last=False)
        stamped = replace(
            request, prompt=ids, template_variables=None, pool_fingerprint=pool.fingerprint
        )
        return Route(pool, stamped)

    def submit(
        self,
        request: Request,
        *,
        conversation: str | None = None,
        listener: Callable[[], None] | None = None,
    ) -> Handle:
        """Takes a request, as `Engine.submit` does, for the pool that `route` finds."""
        route = self.route(request, conversation)
        return route.pool.submit(route.request, listener=listener)

    def step(self) -> bool:
        """Runs a step of every pool; returns False if there was nothing to do."""
        ran = [pool.engine.step() for pool in self.pools]
        return any(ran)

    def close(self) -> None:
        """Cancels what is under way and gives up what is kept."""
        for pool in self.pools:
            pool.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
