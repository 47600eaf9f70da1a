"""The report of a probe: report.json, and one HTML file that needs nothing beside it."""

from .render import render, write_report

__all__ = ["render", "write_report"]
