"""`/v1/pools`: what a router needs to know to ask the right one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from .service import Service

router = APIRouter()


@router.get("/v1/pools")
async def pools(request: HttpRequest) -> dict[str, Any]:
    """Every pool by name, with its fingerprint and context, the shortest first."""
    service: Service = request.app.state.service
    data = [
        {"name": pool.name, "pool_fingerprint": pool.fingerprint, "context": pool.context}
        for pool in service.router.pools
    ]
    return {"object": "list", "data": data}
