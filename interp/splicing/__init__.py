"""Dictionaries spliced into a model, and edits of their features at absolute positions."""

from .edit import Edit
from .splice import splice
from .spliced import Spliced

__all__ = ["Edit", "Spliced", "splice"]
