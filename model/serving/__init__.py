"""One engine for many requests, whose answers do not depend on who else is asking."""

from .counts import EngineStats
from .engine import Engine
from .handle import Handle, Piece
from .long_context import long_context
from .pool import Pool
from .request import (
    Completion,
    EngineFull,
    ModelIsWatched,
    MonitorFailed,
    Request,
    Usage,
    WrongPool,
)
from .router import Route, Router

__all__ = [
    "Completion",
    "Engine",
    "EngineFull",
    "EngineStats",
    "Handle",
    "ModelIsWatched",
    "MonitorFailed",
    "Piece",
    "Pool",
    "Request",
    "Route",
    "Router",
    "Usage",
    "WrongPool",
    "long_context",
]
