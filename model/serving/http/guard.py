"""Refuses requests before their bodies are read."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse

from .errors import error_body

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Refuses strangers' keys, foreign names of this host, other media types and large bodies.

    A page in a browser can reach a loopback address under a name of its own (DNS rebinding), and
    can send a form without asking: hence the checks of Host and Content-Type.
    """

    def __init__(
        self, app: App, *, keys: Sequence[str], hosts: Sequence[str], max_body: int
    ) -> None:
        self._app, self._keys, self._hosts, self._max_body = app, keys, hosts, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        problem = self._problem(scope, headers)
        if problem is not None:
            status, message = problem
            body = error_body(scope["path"], status, message)
            await JSONResponse(body, status)(scope, receive, send)
            return
        scope["state"]["key"] = _key(headers)
        await self._app(scope, self._bounded(scope, receive), send)

    def _problem(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = _name(headers.get("host", ""))
        if "*" not in self._hosts and host not in self._hosts:
            return 421, f"Host: {host!r} is no name of this server"
        if scope["path"] != "/health" and self._keys and not self._knows(_key(headers)):
            return 401, "no valid key: send Authorization: Bearer KEY, or x-api-key"
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return 415, f"Content-Type: expected application/json, got {kind!r}"
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > self._max_body:
                return 413, too_large(self._max_body)
        return None

    def _knows(self, key: str) -> bool:
        # Every key is compared, each in constant time.
        found = [hmac.compare_digest(key.encode(), known.encode()) for known in self._keys]
        return any(found)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Reads at most so much of a body that does not say how long it is, and then notes in the
        request's state that it is too large."""
        n = 0

        async def read() -> MutableMapping[str, Any]:
            nonlocal n
            message = await receive()
            n += len(message.get("body", b""))
            if n > self._max_body:
                scope["state"]["is_too_large"] = True
                return {"type": "http.disconnect"}
            return message

        return read


def too_large(max_body: int) -> str:
    """Returns what a body is told that has more bytes."""
    return f"the body: at most {max_body} bytes"


def _key(headers: dict[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
