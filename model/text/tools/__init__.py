"""Tools that a model may call: how templates write them, and how calls are read and forced."""

from .calls import CallParser, Tool, ToolCall, ToolChoice
from .conversation import Prepared, prepare
from .formats import FORMATS, ToolFormat, format_of

__all__ = [
    "FORMATS",
    "CallParser",
    "Prepared",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolFormat",
    "format_of",
    "prepare",
]
