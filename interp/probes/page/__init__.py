"""The report of a probe: report.json, and one HTML file that needs nothing beside it."""

from .render import headline, render, share, write_report

__all__ = ["headline", "render", "share", "write_report"]
