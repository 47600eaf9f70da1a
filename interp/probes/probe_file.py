"""Probes as files: a folder with probe.json and probe.safetensors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...model.hooks.widths import hook_width
from ...model.sources.json_file import read_object
from ...model.transformer import HookedTransformer
from ...model.weights.checkpoint import CheckpointError
from ..activations.atomic import write_json, write_tensors

CONFIG = "probe.json"
WEIGHTS = "probe.safetensors"


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

    Raises OSError where it cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path / WEIGHTS, {n: x.contiguous() for n, x in record.tensors.items()})
    config = {
        "kind": record.kind,
        "hook_names": list(record.hook_names),
        "options": record.options,
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
        found = read_object(path / CONFIG)
        tensors = load_file(path / WEIGHTS)
        for name, x in tensors.items():
            if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
                raise ValueError(f"{name} holds values that are no finite numbers")
        return ProbeRecord(
            str(found["kind"]),
            tuple(map(str, found["hook_names"])),
            dict(found["options"]),
            tensors,
            float(found["threshold"]),
            dict(found["metadata"]),
            dict(found["report"]),
        )
    except KeyError as error:
        raise ProbeFileError(f"{path}: {CONFIG} has no {error}") from error
    except (ValueError, TypeError, CheckpointError, SafetensorError) as error:
        raise ProbeFileError(f"{path}: the probe is damaged: {error}") from error


def check_fits(record: ProbeRecord, model: HookedTransformer, *, strict: bool = True) -> None:
    """Raises ProbeFileError where a probe's hooks, widths or model are not this model's.

    Without `strict`, another fingerprint warns.
    """
    for name in record.hook_names:
        if name not in model.hook_dict:
            raise ProbeFileError(f"the probe's hook {name} is none of {model.name}'s")
    metadata = record.metadata
    if "dictionary" not in metadata:
        width = sum(hook_width(model.config, name) for name in record.hook_names)
        expected = record.tensors["coef"].shape[1]
        if width != expected:
            raise ProbeFileError(
                f"{', '.join(record.hook_names)}: {width} wide in {model.name}; the probe expects "
                f"{expected}"
            )
    fingerprint = metadata.get("model_fingerprint")
    if fingerprint is None or fingerprint == model.fingerprint():
        return
    message = (
        f"the probe was trained on {metadata.get('model_name', 'a model')} with fingerprint "
        f"{fingerprint[:12]}...; {model.name} has {model.fingerprint()[:12]}...: train it again"
    )
    if strict:
        raise ProbeFileError(message + " (strict=False loads it all the same)")
    warnings.warn(message, stacklevel=3)
