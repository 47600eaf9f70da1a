"""The engines' thread, and the way from a coroutine to an answer."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from ..engine import Engine
from ..handle import Handle, Piece
from ..pool import Pool
from ..request import Completion, EngineFull, ModelIsWatched, Request, WrongPool
from ..router import Router
from .errors import ApiError

_LOG = logging.getLogger(__name__)


class Service:
    """Runs engines in a thread of its own, whenever there is something to run.

    Attributes:
        router: Chooses the engine of a request; there may be only one.
        name: The model's name, as clients give it.
    """

    def __init__(self, engine: Engine | Router, name: str, *, timeout: float) -> None:
        """`timeout`: seconds after which an answer ends, with what was written by then."""
        self.router = Router([Pool.of("only", engine)]) if isinstance(engine, Engine) else engine
        self.name, self._timeout = name, timeout
        self._work = threading.Event()
        self._ends = False
        self._thread = threading.Thread(target=self._drive, name="bitlens engine", daemon=True)

    def start(self) -> None:
        """Begins to run."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and with it what is under way."""
        self._ends = True
        self._work.set()
        if self._thread.is_alive():
            self._thread.join()
        self.router.close()

    async def submit(self, request: Request, conversation: str | None = None) -> Answer:
        """Returns an answer under way. Raises ApiError for a request that cannot be served."""
        answer = Answer(asyncio.get_running_loop())
        try:
            await asyncio.to_thread(self._submit, request, conversation, answer)
        except EngineFull as error:
            raise ApiError(429, str(error)) from error
        except WrongPool as error:
            raise ApiError(421, str(error), "pool_fingerprint") from error
        except (ValueError, TypeError, KeyError, ModuleNotFoundError) as error:
            raise ApiError(400, str(error)) from error
        return answer

    def _submit(self, request: Request, conversation: str | None, answer: Answer) -> None:
        bounded = replace(request, deadline=self.router.now() + self._timeout)
        route = self.router.route(bounded, conversation)
        answer.handle = route.pool.submit(route.request, listener=answer.wake)
        answer.fingerprint = route.pool.fingerprint
        self._work.set()

    def _drive(self) -> None:
        while not self._ends:
            self._work.clear()
            try:
                while not self._ends and self.router.step():
                    pass
            except ModelIsWatched:  # requests wait until the hooks leave
                pass
            except Exception:  # a step's error ends its own requests; this one is the engine's
                _LOG.exception("a step of the engine failed")
            self._work.wait(0.5)


class Answer:
    """One request's answer, as a coroutine waits for it.

    Attributes:
        fingerprint: Of the pool that answers.
    """

    handle: Handle
    fingerprint: str

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Says that there is something new; called in the engine's thread."""
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._news.set)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yields pieces until every sample has ended; leaving early cancels the request."""
        try:
            while True:
                self._news.clear()
                done = self.handle.is_done
                for piece in self.handle.take():
                    yield piece
                if done:
                    return
                await self._news.wait()
        finally:
            if not self.handle.is_done:
                # Not awaited: a task that was cancelled awaits nothing.
                threading.Thread(target=self.handle.cancel, daemon=True).start()

    def finished(self) -> list[Completion]:
        """Returns the answers of a request that has ended.

        Raises ApiError for one that an error ended.
        """
        try:
            return self.handle.results()
        except Exception as error:
            raise ApiError(500, f"{type(error).__name__}: {error}") from error
