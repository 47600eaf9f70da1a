"""The key of a prefix: two passes share pages only if theirs are equal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PrefixKey:
    """The root of a prefix: everything but its tokens that keys and values depend on, and a salt.

    Attributes:
        weights: `model.fingerprint()`: the weights and the config, RoPE scaling included.
        policy: The precision policy.
        numerics_version: Of docs/numerics.md.
        edits: What `edit_key` says of the functions that run inside the pass.
        salt: Only prompts with the same salt share pages.
    """

    weights: str
    policy: str
    numerics_version: str
    edits: str
    salt: str

    def encoded(self) -> bytes:
        """Returns the fields by name as canonical JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True).encode()


def edit_key(
    hooks: Mapping[str, Iterable[Callable[..., object]]],
    overrides: Mapping[str, Callable[..., object]],
) -> str | None:
    """Returns the name of what hooks and overrides make of a pass: "" without any.

    A function that always does the same says so by an attribute `cache_key`, a string that no
    function that does something else has. None if one has none: nothing is known of it.
    """
    installed = [(name, fn) for name, fns in sorted(hooks.items()) for fn in fns]
    installed += sorted(overrides.items(), key=lambda item: item[0])
    if not installed:
        return ""
    keys = [(name, getattr(fn, "cache_key", None)) for name, fn in installed]
    if not all(isinstance(key, str) for _, key in keys):
        return None
    return json.dumps(keys)
