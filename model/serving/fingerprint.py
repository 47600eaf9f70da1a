"""The name of all that decides a pool's bits beside a request."""

from __future__ import annotations

import hashlib
import json

from ..._core import numerics_version
from ..cache.prefix_cache import CacheableModel


def pool_fingerprint(model: CacheableModel) -> str:
    """Returns the digest of weights, config with RoPE scaling, policy and numerics version.

    Two pools of the same fingerprint give a request the same answer, bit for bit; two of different
    ones do not.
    """
    identity = json.dumps([model.fingerprint(), model.ops.policy.name, numerics_version])
    return "bl_" + hashlib.sha256(identity.encode()).hexdigest()[:32]
