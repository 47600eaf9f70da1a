"""Serves one live page on this machine alone, to whoever has its address."""

from __future__ import annotations

import hmac
import json
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from .live import Event, Live
from .page import Page

HOST = "127.0.0.1"
_LONGEST = 64 << 20


class PageServer:
    """A page on a port of the loopback interface.

    Nothing is answered without the token that `url` carries, nor under another name than this
    machine's own address (so no other site can reach it through a name that points here).
    """

    def __init__(self, page: Page, live: Live, port: int = 0) -> None:
        """Opens the port; 0 takes a free one. Raises OSError for one that is taken."""
        self._html = page.html(live=True).encode()
        self._live = live
        self._token = secrets.token_urlsafe(24)
        server = self

        class Handler(_Handler):
            owner = server

        self._server = ThreadingHTTPServer((HOST, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_port

    @property
    def url(self) -> str:
        """The address, with the token."""
        return f"http://{HOST}:{self.port}/?token={self._token}"

    def run(self) -> None:
        """Serves until `close`, or until it is interrupted."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Ends `run` and frees the port."""
        self._server.shutdown()
        self._server.server_close()

    def admits(self, host: str | None, token: str | None) -> bool:
        """Returns whether a request names this server, and its token."""
        given = (token or "").encode("utf-8", "replace")
        return host == f"{HOST}:{self.port}" and hmac.compare_digest(given, self._token.encode())

    @property
    def html(self) -> bytes:
        return self._html

    @property
    def live(self) -> Live:
        return self._live


class _Handler(BaseHTTPRequestHandler):
    """The page at /, and answers to its questions at /ask, a JSON object a line."""

    owner: PageServer
    protocol_version = "HTTP/1.0"  # an answer ends with its connection

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        token = parse_qs(parts.query).get("token", [""])[0]
        if not self.owner.admits(self.headers["Host"], token):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that bitlens explore printed")
        elif parts.path != "/":
            self._refuse(HTTPStatus.NOT_FOUND, "there is one page here")
        else:
            self._begin("text/html; charset=utf-8")
            self.wfile.write(self.owner.html)

    def do_POST(self) -> None:
        if not self.owner.admits(self.headers["Host"], self.headers["X-Bitlens-Token"]):
            return self._refuse(HTTPStatus.FORBIDDEN, "no token, or another one")
        length = self.headers["Content-Length"] or ""
        if self.path != "/ask" or not length.isdecimal() or int(length) > _LONGEST:
            return self._refuse(HTTPStatus.BAD_REQUEST, "expected a JSON object for /ask")
        try:
            request = json.loads(self.rfile.read(int(length)))
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except ValueError as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, f"no JSON object: {error}")
        self._begin("application/x-ndjson")
        try:
            self.owner.live.answer(request, self._tell)
        except (BrokenPipeError, ConnectionResetError):
            return None  # the page has gone, or asked something else
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            self._tell({"kind": "error", "message": str(error)})
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: addresses carry the token."""

    def _tell(self, event: Event) -> None:
        self.wfile.write(json.dumps(event).encode() + b"\n")
        self.wfile.flush()

    def _begin(self, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self._headers(kind)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.send_response(status)
        self._headers("text/plain; charset=utf-8")
        self.wfile.write(why.encode())

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
