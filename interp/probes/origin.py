"""The origin of a probe: the model, policy and numerics whose activations it was fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import _core
from ...model.hooks.widths import hook_width
from ...model.transformer import HookedTransformer
from .probe_file import ProbeFileError


def origin_of(model: HookedTransformer) -> dict[str, Any]:
    """Returns the metadata by which a file knows its model again."""
    return {
        "model_name": Path(model.name).name,
        "model_fingerprint": model.fingerprint(),
        "policy": model.ops.policy.name,
        "numerics_version": _core.numerics_version,
    }


def check_origin(
    hook_names: Sequence[str],
    width: int,
    metadata: Mapping[str, Any],
    model: HookedTransformer,
    *,
    strict: bool = True,
) -> None:
    """Raises ProbeFileError where a probe's hooks, width or model are not this model's.

    A probe that carries no fingerprint is known by its model's name, where it has that. Without
    `strict`, another model of the same shapes warns.
    """
    for name in hook_names:
        if name not in model.hook_dict:
            raise ProbeFileError(
                f"the probe's hook {name} is none of {model.name}'s: load the model it was "
                f"trained on, {metadata.get('model_name', 'which it does not name')}"
            )
    if "dictionary" not in metadata:
        expected = sum(hook_width(model.config, name) for name in hook_names)
        if width != expected:
            raise ProbeFileError(
                f"{', '.join(hook_names)}: {expected} wide in {model.name}; the probe expects "
                f"{width}: load the model it was trained on, or train it again"
            )
    if problem := _foreign(metadata, model):
        complain(f"{problem}: train it again", strict=strict)


def complain(problem: str, *, strict: bool) -> None:
    """Raises ProbeFileError with the problem and its way out; without `strict`, only warns."""
    if strict:
        raise ProbeFileError(problem + " (strict=False loads it all the same)")
    warnings.warn(problem, stacklevel=4)


def _foreign(metadata: Mapping[str, Any], model: HookedTransformer) -> str | None:
    name = metadata.get("model_name", "a model")
    fingerprint = metadata.get("model_fingerprint")
    if fingerprint is None:
        if metadata.get("model_name", model.name) in (model.name, Path(model.name).name):
            return None
        return f"the probe was trained on {name}, not on {model.name}"
    if fingerprint == model.fingerprint():
        return None
    return (
        f"the probe was trained on {name} with fingerprint {fingerprint[:12]}...; {model.name} "
        f"has {model.fingerprint()[:12]}..."
    )
