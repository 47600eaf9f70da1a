"""One engine for many requests, whose answers do not depend on who else is asking."""

from .engine import Engine, EngineStats
from .handle import Handle, Piece
from .request import Completion, EngineFull, Request, Usage

__all__ = [
    "Completion",
    "Engine",
    "EngineFull",
    "EngineStats",
    "Handle",
    "Piece",
    "Request",
    "Usage",
]
