"""The application: routes, who may use them, and how errors are said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from ....version import __version__
from . import anthropic, openai, pools
from .errors import ApiError, error_response, validation_message
from .guard import LOOPBACK, Guard, too_large
from .metrics import exposition
from .service import Service

MAX_BODY = 8 << 20
"""Bytes of a request: a prompt of the longest context, in a few bytes a token."""


def create_app(
    service: Service,
    *,
    keys: Sequence[str] = (),
    hosts: Sequence[str] = LOOPBACK,
    max_body: int = MAX_BODY,
) -> FastAPI:
    """Returns an ASGI application that answers both dialects from one engine.

    Args:
        keys: One of them must come with every request; none: anybody may ask.
        hosts: Names of this server that clients may use; "*" permits all.
    """

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(title="bitlens", version=__version__, lifespan=running)
    app.state.service = service
    app.add_middleware(Guard, keys=tuple(keys), hosts=tuple(hosts), max_body=max_body)
    app.include_router(openai.router)
    app.include_router(anthropic.router)
    app.include_router(pools.router)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Says that the server runs."""
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts, as Prometheus reads them."""
        return Response(exposition(service.router), media_type="text/plain; version=0.0.4")

    @app.exception_handler(ApiError)
    async def said(request: Request, error: ApiError) -> JSONResponse:
        return error_response(request, error.status, error.message, error.param)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        message, field = validation_message(error.errors())
        return error_response(request, 400, message, field)

    @app.exception_handler(400)
    async def unread(request: Request, error: Any) -> JSONResponse:
        if getattr(request.state, "is_too_large", False):
            return error_response(request, 413, too_large(max_body))
        return error_response(request, 400, str(error.detail))

    @app.exception_handler(404)
    async def unknown(request: Request, error: Any) -> JSONResponse:
        return error_response(request, 404, f"{request.url.path}: no such route or model")

    @app.exception_handler(405)
    async def method(request: Request, error: Any) -> JSONResponse:
        return error_response(request, 405, f"{request.method}: not for {request.url.path}")

    return app
