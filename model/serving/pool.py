"""A pool: one engine of a fleet, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from .engine import Engine
from .handle import Handle
from .intake import ServedModel
from .request import Request, WrongPool


class Pool:
    """One way of computing answers: a model with its RoPE, behind an engine of its own.

    Attributes:
        name: What people call it.
        engine: What runs.
        fingerprint: What requests call it: a digest of all that decides an answer beside its
            request.
        context: Tokens that a prompt and its answer may have.
        n_taken, n_refused: Requests that it took, and those that named another pool.
    """

    def __init__(self, name: str, model: ServedModel, **engine: Any) -> None:
        """Makes an engine on the model; `engine` are its other arguments."""
        self._own(name, Engine(model, **engine))

    @classmethod
    def of(cls, name: str, engine: Engine) -> Self:
        """Returns the pool of an engine that is there already."""
        pool = cls.__new__(cls)
        pool._own(name, engine)
        return pool

    def _own(self, name: str, engine: Engine) -> None:
        self.name, self.engine = name, engine
        self.fingerprint, self.context = engine.fingerprint, engine.model.config.n_ctx
        self.n_taken = self.n_refused = 0

    def submit(self, request: Request, *, listener: Callable[[], None] | None = None) -> Handle:
        """Takes a request, as `Engine.submit` does.

        Raises WrongPool for one that names another fingerprint, whatever brought it here.
        """
        try:
            handle = self.engine.submit(request, listener=listener)
        except WrongPool:
            self.n_refused += 1
            raise
        self.n_taken += 1
        return handle
