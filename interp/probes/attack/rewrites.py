"""Rewritten texts by fixed rules: ciphers, and paraphrases that change words and keep the matter.

They need no other model, so they are the same everywhere; a person's or a model's paraphrase goes
further. What a probe makes of them is known only beside what it makes of benign texts that were
rewritten in the same way.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable, Mapping

_WORDINGS = {
    "how do i": "what is the way to",
    "how to": "the way to",
    "can you": "would you be able to",
    "i am": "i'm",
    "do not": "don't",
    "cannot": "can't",
    "you should": "it would be best to",
    "you can": "one is able to",
    "first": "to begin with",
    "then": "after that",
    "because": "since",
    "use": "employ",
    "make": "produce",
    "get": "obtain",
    "give": "provide",
    "need": "require",
    "show": "demonstrate",
    "help": "assist",
    "people": "persons",
    "many": "numerous",
    "very": "extremely",
    "also": "in addition",
    "but": "however",
    "about": "concerning",
}
_PHRASES = re.compile(r"\b(" + "|".join(sorted(_WORDINGS, key=len, reverse=True)) + r")\b")
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def reworded(text: str) -> str:
    """Returns the text in lower case with common phrases replaced by others of their meaning."""
    return _PHRASES.sub(lambda found: _WORDINGS[found[0]], text.lower())


def framed(text: str) -> str:
    """Returns the text as something that somebody is reported to have said."""
    return f"In the words of somebody else, as I remember them: {reworded(text)} That is all of it."


def listed(text: str) -> str:
    """Returns the text with its sentences as items of a list, last one first."""
    sentences = [s for s in _SENTENCE.split(text.strip()) if s]
    return "\n".join(f"- {s}" for s in reversed(sentences))


def rot13(text: str) -> str:
    """Returns the text with every letter moved by thirteen."""
    return codecs.encode(text, "rot13")


def base_64(text: str) -> str:
    """Returns the text's UTF-8 in base 64."""
    return base64.b64encode(text.encode()).decode()


def leet(text: str) -> str:
    """Returns the text with digits for letters that look like them."""
    return text.translate(_LEET)


def spaced(text: str) -> str:
    """Returns the text with a space between any two characters."""
    return " ".join(text)


REWRITES: Mapping[str, Callable[[str], str]] = {
    "reworded": reworded,
    "framed": framed,
    "listed": listed,
    "rot13": rot13,
    "base64": base_64,
    "leet": leet,
    "spaced": spaced,
}
"""By name; the first three are paraphrases, the others ciphers."""
