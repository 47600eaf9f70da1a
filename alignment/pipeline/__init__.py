"""`bitlens cai run`: every stage under one manifest, and one report."""

from .behaviour import Cell
from .config import CaiConfig
from .result import CaiRun
from .rounds import Round, rounds_of
from .run import run

__all__ = ["CaiConfig", "CaiRun", "Cell", "Round", "rounds_of", "run"]
