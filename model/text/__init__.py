"""Text in and out of a model: tokenizer, chat template, prompts, streams."""

from .interface import TextInterface

__all__ = ["TextInterface"]
