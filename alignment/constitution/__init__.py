"""Principles as data, and the checks that keep them data."""

from .constitution import SHIPPED, Comparison, Constitution, Critique, Example

__all__ = ["SHIPPED", "Comparison", "Constitution", "Critique", "Example"]
