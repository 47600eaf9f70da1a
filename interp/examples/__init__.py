"""Explains features by the text they fire on and the tokens they promote."""

from .collect import collect_examples
from .examples import Example, Examples, load_examples
from .promoted import logit_effects, promoted_tokens

__all__ = [
    "Example",
    "Examples",
    "collect_examples",
    "load_examples",
    "logit_effects",
    "promoted_tokens",
]
