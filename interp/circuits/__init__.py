"""Circuits: attribution graphs over transcoders, and how far to believe them."""

from .edge_stability import EdgeStability, edge_stability
from .faithfulness import Faithfulness, faithfulness
from .graph import Graph
from .graph_data import GraphData, Node
from .graph_schema import GraphFileError
from .intervention import Intervention
from .query_key import QueryKey, query_key
from .trace import trace

__all__ = [
    "EdgeStability",
    "Faithfulness",
    "Graph",
    "GraphData",
    "GraphFileError",
    "Intervention",
    "Node",
    "QueryKey",
    "edge_stability",
    "faithfulness",
    "query_key",
    "trace",
]
