"""A forward pass that stands still between operations, so that passes can run side by side."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch

from ..addresses import Addressable, Site, UnobservedError


@dataclass(frozen=True)
class Step:
    """One operation of a pass.

    Attributes:
        operands: What went in; None where unseen.
        value: What came out, shaped as the contract's output.
        violation: How that breaks the contract, if a judge looked and it does.
        result: What came out, in the model's own form.
    """

    operands: tuple[torch.Tensor, ...] | None
    value: torch.Tensor
    violation: str | None = None
    result: Any = None


Judge = Callable[[Site, tuple[Any, ...], dict[str, Any], torch.Tensor], str | None]
"""Says how a result breaks its contract, from the site, the arguments and the viewed result."""


def never(site: Site, args: tuple[Any, ...], kwargs: dict[str, Any], y: torch.Tensor) -> str | None:
    """A judge that looks at nothing."""
    return None


class Stream:
    """A pass in a thread of its own, which goes on only while its user waits for a step. It runs in
    the context that its user entered it in, with all that `with` blocks have installed there, and
    with its user's number of torch threads and autocast, which torch keeps for each thread.

    At any time one thread computes, so passes neither race nor compete for cores. Held are only
    steps that nobody has taken yet: a few that it runs ahead, since handing over costs more than a
    small operation, and what another model's order makes necessary. A context manager; leaving it
    abandons the rest of the pass.
    """

    AHEAD = 12

    def __init__(
        self,
        model: Addressable,
        tokens: torch.Tensor,
        sites: Mapping[str, Site],
        judge: Judge = never,
    ) -> None:
        """Stops at the given sites, which are the model's own."""
        self._model = model
        self._tokens = tokens
        self._sites = sites
        self._judge = judge
        self._arrived: dict[str, Step] = {}
        self._ran: set[str] = set()
        self._go, self._ready = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._ready.acquire()
        self._thread = threading.Thread()
        self._overrides = ExitStack()
        self._abandoned = False
        self._done = False
        self._error: BaseException | None = None
        self._logits: Any = None

    def __enter__(self) -> Stream:
        with ExitStack() as installing:
            for address, site in self._sites.items():
                visit = partial(self._visit, site)
                installing.enter_context(self._model.override(address, visit))
            self._overrides = installing.pop_all()
        # A thread begins with an empty context, in which a model finds no override.
        run = partial(
            contextvars.copy_context().run, self._run, torch.get_num_threads(), _autocast()
        )
        self._thread = threading.Thread(target=run, daemon=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._abandoned = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()
        self._overrides.close()

    def take(self, address: str) -> Step:
        """The step at an address; runs the pass up to it. Every step can be taken once.

        Raises UnobservedError if the pass ends without it, and whatever the pass itself raises.
        """
        while address not in self._arrived:
            if self._done:
                raise UnobservedError(f"the pass ended and never ran {address}, or it was taken")
            self._proceed()
        return self._arrived.pop(address)

    def finish(self) -> torch.Tensor:
        """Runs to the end and returns the logits."""
        while not self._done:
            self._proceed()
            self._arrived.clear()
        logits: torch.Tensor = self._logits
        return logits

    def _proceed(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._ready.acquire()
        if self._error is not None:
            raise self._error

    @torch.no_grad()
    def _run(self, threads: int, autocast: torch.autocast) -> None:
        try:
            # A product's order of summation may depend on it.
            torch.set_num_threads(threads)
            with autocast:
                self._logits = self._model(self._tokens)
        except _Abandoned:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._done = True
            self._ready.release()

    def _visit(self, site: Site, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        # Another pass of the same model, side by side with this one.
        if threading.current_thread() is not self._thread:
            return result
        if site.address in self._ran:
            raise UnobservedError(f"{site.address} ran twice in one pass: which one is judged?")
        self._ran.add(site.address)
        value = site.view(result).detach()
        operands = None if site.operands is None else site.operands(*args, **kwargs)
        violation = self._judge(site, args, kwargs, value)
        self._arrived[site.address] = Step(operands, value, violation, result)
        if len(self._arrived) >= self.AHEAD:
            self._ready.release()
            self._go.acquire()
        if self._abandoned:
            raise _Abandoned
        return result


def _autocast() -> torch.autocast:
    """Returns a context manager that enters this thread's autocast on CPU, enabled or not."""
    return torch.autocast(
        "cpu", dtype=torch.get_autocast_dtype("cpu"), enabled=torch.is_autocast_enabled("cpu")
    )


class _Abandoned(BaseException):
    """Unwinds a pass that nobody waits for any more."""
