"""The report: one HTML file that needs nothing beside it."""

from .render import render

__all__ = ["render"]
