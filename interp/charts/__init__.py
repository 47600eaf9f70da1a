"""Charts as inline SVG."""

from .svg import Canvas, Scale, axes, log_scale

__all__ = ["Canvas", "Scale", "axes", "log_scale"]
