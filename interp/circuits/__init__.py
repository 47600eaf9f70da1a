"""Circuits: attribution graphs over transcoders, and how far to believe them."""

from .graph import Graph
from .graph_data import GraphData, Node
from .graph_schema import GraphFileError
from .intervention import Intervention
from .trace import trace

__all__ = ["Graph", "GraphData", "GraphFileError", "Intervention", "Node", "trace"]
