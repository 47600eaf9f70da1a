"""Random choices that a key fixes, so that each can be made again alone."""

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
