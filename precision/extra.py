"""The error for a package of the extra `precision` that is not installed."""

from __future__ import annotations


def missing(what: str, package: str) -> ImportError:
    """The error to raise from the import's own: `what` needs `package`."""
    return ImportError(f"{what} needs {package}: pip install 'bitlens[precision]'")
