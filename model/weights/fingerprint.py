"""The identity of a model, in one digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from .checkpoint import Checkpoint


def fingerprint(checkpoint: Checkpoint) -> str:
    """Returns the SHA-256, in hex, of a checkpoint's config and its tensors widened to fp32.

    Neither the storage format, the backend, the policy nor the ranks change it: a Q8_0 file and
    the fp32 file of the values that it stands for have the same fingerprint. `architecture`, a name
    that nothing is computed from, does not count.
    """
    config = dataclasses.asdict(checkpoint.config)
    del config["architecture"]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    shapes = checkpoint.reader.shapes
    for name in sorted(checkpoint.names()):
        shape = tuple(shapes[name])
        digest.update(f"{name} {shape}".encode())
        if len(shape) == 1:
            digest.update(checkpoint.vector(name).contiguous().numpy().data)
            continue
        for _, rows in checkpoint.matrix(name).chunks():
            digest.update(rows.contiguous().numpy().data)
    return digest.hexdigest()
