"""Finds where two runs of a model part: free running, in lockstep, by exchanging operations."""

from .difference import Difference, difference
from .first_divergence import first_divergence
from .report import Divergence, Row, Swap

__all__ = ["Difference", "Divergence", "Row", "Swap", "difference", "first_divergence"]
