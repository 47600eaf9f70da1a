"""Probes as files: a folder with probe.json and probe.safetensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...model.sources.json_file import read_object
from ...model.weights.atomic import write_json, write_tensors
from ...model.weights.checkpoint import CheckpointError
from .metadata import checked_metadata

CONFIG = "probe.json"
WEIGHTS = "probe.safetensors"

FORMAT = "bitlens.probe/1"
"""What a file says it is; files from before this name say nothing."""

NORMALISATION = "folded into the weights"
"""A probe reads rows as the model has them: what its fit divided by is in `coef`."""


class ProbeFileError(ValueError):
    """A probe that is damaged or of another model; names what and the way out."""


@dataclass(frozen=True)
class ProbeRecord:
    """The contents of a probe's file.

    Attributes:
        kind: Which probe it is, such as "logistic".
        options: Arguments of its constructor besides the hooks.
        tensors: Its weights, fp32, by name; "coef" [H, D] among them.
        threshold: A score above it is flagged.
        metadata: Which model, data and versions it comes from.
        report: What training found out about it.
    """

    kind: str
    hook_names: tuple[str, ...]
    options: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    threshold: float
    metadata: dict[str, Any]
    report: dict[str, Any]


def save_record(record: ProbeRecord, path: Path) -> None:
    """Writes the folder; the config appears last, so one without it is incomplete.

    Raises OSError where it cannot be written, and ValueError for a threshold that is no finite
    number.
    """
    if not math.isfinite(record.threshold):
        raise ValueError(f"threshold_ = {record.threshold}: expected a finite number")
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path / WEIGHTS, {n: x.contiguous() for n, x in record.tensors.items()})
    config = {
        "format": FORMAT,
        "kind": record.kind,
        "hook_names": list(record.hook_names),
        "options": record.options,
        "normalisation": NORMALISATION,
        "threshold": record.threshold,
        "metadata": record.metadata,
        "report": record.report,
    }
    write_json(path / CONFIG, config)


def load_record(path: Path) -> ProbeRecord:
    """Reads what `save_record` wrote.

    Raises FileNotFoundError for a file that is missing, ProbeFileError for a damaged one.
    """
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path}: there is no {name}")
    try:
        return _record(read_object(path / CONFIG), load_file(path / WEIGHTS))
    except KeyError as error:
        raise ProbeFileError(f"{path}: {CONFIG} has no {error}") from error
    except (ValueError, TypeError, OverflowError, CheckpointError, SafetensorError) as error:
        raise ProbeFileError(f"{path}: the probe is damaged: {error}") from error


def _record(found: dict[str, Any], tensors: dict[str, torch.Tensor]) -> ProbeRecord:
    for name, expected in (("format", FORMAT), ("normalisation", NORMALISATION)):
        if found.get(name, expected) != expected:
            raise ValueError(
                f"{name} {str(found[name])[:100]!r}: this version of bitlens reads {expected!r}; "
                "save the probe with this version, or read it with the one that wrote it"
            )
    hook_names, threshold = found["hook_names"], float(found["threshold"])
    if not isinstance(hook_names, list) or not all(isinstance(h, str) for h in hook_names):
        raise ValueError("hook_names: expected a list of names")
    if not math.isfinite(threshold):
        raise ValueError(f"threshold {threshold}: expected a finite number")
    if "coef" not in tensors:
        raise ValueError(f"{WEIGHTS} holds no coef")
    return ProbeRecord(
        str(found["kind"])[:100],
        tuple(hook_names),
        dict(found["options"]),
        {name: _finite(name, x) for name, x in tensors.items()},
        threshold,
        checked_metadata(found["metadata"]),
        dict(found["report"]),
    )


def _finite(name: str, x: torch.Tensor) -> torch.Tensor:
    """The tensor as fp32."""
    if not x.is_floating_point() or not bool(torch.isfinite(x.float()).all()):
        raise ValueError(f"{name[:100]!r} holds values that are no finite numbers in fp32")
    return x.float()
