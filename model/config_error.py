"""The error for a model configuration that cannot be."""

from __future__ import annotations


class ConfigError(ValueError):
    """A model configuration that contradicts itself or asks for something bitlens does not compute.

    The message names the field, its value and what is supported.
    """
