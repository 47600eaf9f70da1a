"""The `bitlens` command, one group of commands a file."""

from .command import main

__all__ = ["main"]
