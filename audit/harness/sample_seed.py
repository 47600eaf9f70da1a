"""The seed of one sample of an evaluation."""

from __future__ import annotations

import hashlib
import json


def sample_seed(seed: int, *identity: str | int | None) -> int:
    """Returns the seed, below 2^64, that a sample of this identity is drawn with.

    It hangs on nothing else: neither on the order of samples, nor on which of them are run.

    Args:
        seed: The evaluation's.
        identity: Names the sample: lm-evaluation-harness's task, document, request and repetition,
            Inspect's sample and epoch.
    """
    named = json.dumps([seed, *identity]).encode()
    return int.from_bytes(hashlib.sha256(named).digest()[:8], "little")
