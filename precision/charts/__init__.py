"""Charts as inline SVG, and the style that reports share."""

from .figure import NARROW, WIDE, Figure, figure
from .svg import Canvas, Scale, axes, log_scale
from .templates import template

__all__ = [
    "NARROW",
    "WIDE",
    "Canvas",
    "Figure",
    "Scale",
    "axes",
    "figure",
    "log_scale",
    "template",
]
