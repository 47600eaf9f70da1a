"""A page: one HTML file that holds its script, its style and its data, and asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

SCRIPT, STYLE = "page.js", "page.css"
FRAME_HEIGHT = 720


@dataclass(frozen=True)
class Page:
    """A view and its data. A notebook shows it in a frame.

    Attributes:
        title: Of the document.
        data: What the view draws, as JSON can hold it; "view" names it.
        shards: Compressed parts of the data (`shard`), each read when it is first needed.
    """

    title: str
    data: Mapping[str, Any]
    shards: tuple[str, ...] = field(default=(), repr=False)

    def html(self, *, live: bool = False) -> str:
        """Returns the document.

        Its content security policy admits the page's own script and style by their hashes and
        nothing else; with `live`, requests to the address it was served from, too.
        """
        script, style = bundle(SCRIPT), bundle(STYLE)
        policy = (
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
            f"img-src data: blob:; base-uri 'none'; form-action 'none'"
            + ("; connect-src 'self'" if live else "")
        )
        data = {**self.data, "live": live}
        shards = "\n".join(
            f'<script type="text/plain" id="bitlens-shard-{i}">{text}</script>'
            for i, text in enumerate(self.shards)
        )
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(self.title)}</title>
<style>{style}</style>
</head>
<body>
<main id="bitlens-page"><noscript>This page is drawn by a script that it carries.</noscript></main>
<script type="application/json" id="bitlens-data">{_in_script(data)}</script>
{shards}
<script type="module">{script}</script>
</body>
</html>
"""

    def save(self, path: str | Path) -> Path:
        """Writes the document; returns where."""
        path = Path(path)
        path.write_text(self.html(), "utf-8")
        return path

    def _repr_html_(self) -> str:
        """The document in a frame of its own, which cannot reach the notebook."""
        return (
            f'<iframe sandbox="allow-scripts allow-downloads" width="100%" height="{FRAME_HEIGHT}" '
            f'title="{escape(self.title)}" style="border: 0; border-radius: 14px" '
            f'srcdoc="{escape(self.html())}"></iframe>'
        )


@cache
def bundle(name: str) -> str:
    """Returns the text of a file that `frontend/` was built into."""
    return files(__package__).joinpath(name).read_text("utf-8")


def shard(value: Any) -> str:
    """Returns a value as JSON, deflated, in base64."""
    packed = zlib.compress(_json(value).encode(), 9)
    return base64.b64encode(packed).decode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _in_script(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    return _json(value).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
