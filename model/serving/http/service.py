"""The engines' thread, and the way from a coroutine to an answer."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from ...generation.monitors import GenerationMonitor, begin_watch
from ..engine import Engine
from ..handle import Handle, Piece
from ..intake import ServedModel
from ..pool import Pool
from ..request import Completion, EngineFull, ModelIsWatched, Request, WrongPool
from ..router import Router
from .errors import ApiError

_LOG = logging.getLogger(__name__)

Record = Callable[[ServedModel, str, Sequence[Completion]], object]
"""Writes down the answers of one request: the model that gave them, and the request's id."""


class Service:
    """Runs engines in a thread of its own, whenever there is something to run.

    Attributes:
        router: Chooses the engine of a request; there may be only one.
        name: The model's name, as clients give it.
    """

    def __init__(
        self,
        engine: Engine | Router,
        name: str,
        *,
        timeout: float,
        monitors: Sequence[GenerationMonitor] = (),
        record: Record | None = None,
    ) -> None:
        """Makes a service that `start` sets to work.

        Args:
            timeout: Seconds after which an answer ends, with what was written by then.
            monitors: Watch every request.
            record: Called once a request has ended, before its client knows. If it raises, the
                answer ends by an error.

        Raises what a monitor raises that does not fit one of the models.
        """
        self.router = Router([Pool.of("only", engine)]) if isinstance(engine, Engine) else engine
        for pool in self.router.pools:
            begin_watch(monitors, pool.engine.model, [[0]])
        self.name, self._timeout = name, timeout
        self._monitors, self._record, self._recording = monitors, record, threading.Lock()
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
        answer = Answer(asyncio.get_running_loop(), self._write_down)
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
        until = self.router.now() + self._timeout
        bounded = replace(request, deadline=until, monitors=self._monitors)
        route = self.router.route(bounded, conversation)
        answer.model = route.pool.engine.model
        answer.handle = route.pool.submit(route.request, listener=answer.wake)
        answer.fingerprint = route.pool.fingerprint
        answer.wake()  # it may have ended before it had its handle
        self._work.set()

    def _write_down(self, answer: Answer) -> None:
        """Records an answer that has ended, once."""
        with self._recording:
            if answer.is_over or answer.handle is None or not answer.handle.is_done:
                return
            try:
                if self._record is not None:
                    self._record(answer.model, answer.id, answer.handle.completions)
            except Exception as error:
                _LOG.exception("answer %s could not be written down", answer.id)
                answer.failure = error
            answer.is_over = True

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
        id: The request's own.
        model: The one that answers.
        fingerprint: Of the pool that answers.
        is_over: Whether it has ended and was written down.
        failure: What kept it from being written down.
    """

    model: ServedModel
    fingerprint: str

    def __init__(
        self, loop: asyncio.AbstractEventLoop, write_down: Callable[[Answer], None]
    ) -> None:
        self.id = uuid.uuid4().hex
        self.handle: Handle | None = None
        self.is_over = False
        self.failure: Exception | None = None
        self._loop, self._write_down = loop, write_down
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Says that there is something new; called in the engine's thread."""
        self._write_down(self)
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._news.set)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yields pieces until every sample has ended; leaving early cancels the request."""
        assert self.handle is not None
        try:
            while True:
                self._news.clear()
                done = self.is_over
                for piece in self.handle.take():
                    yield piece
                if done:
                    return
                await self._news.wait()
        finally:
            self.drop()

    def drop(self) -> None:
        """Cancels the request unless it has ended. Returns at once: a task that was cancelled
        awaits nothing."""
        if self.handle is not None and not self.handle.is_done:
            threading.Thread(target=self.handle.cancel, daemon=True).start()

    def finished(self) -> list[Completion]:
        """Returns the answers of a request that has ended, less tokens that were held back.

        Raises ApiError for one that an error ended, or that could not be written down.
        """
        assert self.handle is not None
        if self.failure is not None:
            raise ApiError(500, "the answer could not be written down") from self.failure
        try:
            return [_handed_out(each) for each in self.handle.results()]
        except Exception as error:
            raise ApiError(500, f"{type(error).__name__}: {error}") from error


def _handed_out(found: Completion) -> Completion:
    n, logprobs = found.n_handed_out, found.logprobs
    return replace(found, ids=found.ids[:n], logprobs=None if logprobs is None else logprobs[:n])
