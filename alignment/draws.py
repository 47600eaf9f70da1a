"""Random choices that a key fixes, so that each can be made again alone, and digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def draw_seed(*key: object) -> int:
    """Returns a seed from a key such as (seed, prompt's id, round, "critique"); 48 bits."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:6], "big")


def digest_of(value: Any) -> str:
    """Returns the SHA-256 of JSON-ready data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def text_digest(text: str) -> str:
    """Returns the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def shuffled(seed: int, id: str) -> bytes:
    """Returns a key to sort by: an order that the seed fixes, whatever else is sorted."""
    return hashlib.sha256(f"{seed} {id}".encode()).digest()
