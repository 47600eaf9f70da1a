"""A drawing, wherever it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from ...precision import notebook


@dataclass(frozen=True)
class Drawing:
    """HTML that a notebook shows, or a file.

    Attributes:
        title: What is drawn.
        body: The HTML, everything in it escaped.
    """

    title: str
    body: str = field(repr=False)

    def _repr_html_(self) -> str:
        title = notebook.line(self.title, "title") if self.title else ""
        return notebook.output(title, self.body)

    def save(self, path: str | Path) -> Path:
        """Writes a page with the drawing; returns where."""
        path = Path(path)
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        path.write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>{escape(self.title)}</title>"
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><body style="margin: 20px">'
            f"{self._repr_html_()}</body></html>\n",
            "utf-8",
        )
        return path
