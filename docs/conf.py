"""Sphinx's settings: every page under docs/ as it is, and the API from the docstrings.

The sources' root is the repository's, so that pages link to README.md and to files of code as they
do elsewhere. `make docs` builds build/docs; a warning is an error.
"""

from __future__ import annotations

import re

from bitlens import __version__
from sphinx.application import Sphinx

project = "bitlens"
author = "the bitlens maintainers"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = ["build", "tests", "**/.*"]

html_theme = "furo"
html_title = f"bitlens {release}"
html_show_copyright = False

myst_heading_anchors = 4

default_role = "code"
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)
_PAGE = re.compile(r"\]\(([\w./-]+\.md)\)")


def _contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Gives the side bar what index.md links to, so that it stays plain Markdown."""
    if not page.endswith("/index"):
        return
    for caption, body in _SECTION.findall(source[0]) or [("", source[0])]:
        title = [f":caption: {caption}"] if caption else []
        pages = _PAGE.findall(body)
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", *title, "", *pages, "```", ""])


def _plain_text(app: Sphinx, kind: str, name: str, *rest: object) -> None:
    """Reads a docstring as its author meant it: | and * as they are, indented text as code."""
    lines = rest[-1]
    assert isinstance(lines, list)
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[i] = "".join(parts)
    for i in range(len(lines) - 1, 1, -1):
        before = next((line for line in reversed(lines[:i]) if line), "    ")
        if lines[i].startswith("    ") and not lines[i - 1] and not before.startswith(" "):
            lines[i:i] = ["::", ""]


def setup(app: Sphinx) -> None:
    app.connect("source-read", _contents)
    app.connect("autodoc-process-docstring", _plain_text, priority=100)
