"""Running scores written down on one platform, to be held against another's: a JSON file."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .... import _core
from ....model.sources.json_file import read_object
from ....model.transformer import HookedTransformer
from ....model.weights.atomic import write_json
from ....model.weights.checkpoint import CheckpointError
from ..data import Dataset
from ..probe import Probe

FORMAT = "bitlens.probe-scores/1"


@dataclass(frozen=True)
class RecordedScores:
    """The running scores of conversations by one run.

    Attributes:
        name: Which run it was: its policy, instruction set and machine.
        scores: fp32 [T] for each conversation's id.
    """

    name: str
    scores: Mapping[str, torch.Tensor]

    @classmethod
    def load(cls, path: Path, probe: Probe, data: Dataset) -> RecordedScores:
        """Reads what `record_scores` wrote. Raises FileNotFoundError, and ValueError for a damaged
        file, another probe's scores, or conversations that are missing from it."""
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            found = read_object(path)
            own = found["format"] == FORMAT
            scores = {
                str(k): torch.tensor([float(x) for x in v], dtype=torch.float32, device="cpu")
                for k, v in found["scores"].items()
            }
            name, digest = str(found["run"]), str(found["probe"])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, CheckpointError):
            own = False
        if not own:
            raise ValueError(
                f"{path}: no recorded scores: write them with `probe certify --record`"
            )
        if digest != probe_digest(probe):
            raise ValueError(f"{path}: scores of another probe: record this one's")
        if missing := [e.id for e in data if e.id not in scores]:
            raise ValueError(f"{path}: no scores of {missing[0]!r}: record the same data")
        return cls(name, scores)


def record_scores(
    path: Path,
    model: HookedTransformer,
    probe: Probe,
    data: Dataset,
    scores: Sequence[torch.Tensor],
) -> None:
    """Writes running scores with which run, probe and data they are of; ids and numbers only."""
    told: dict[str, Any] = {
        "format": FORMAT,
        "run": f"{model.ops.policy.name}, {_core.isa()}, {platform.machine()}",
        "numerics_version": _core.numerics_version,
        "probe": probe_digest(probe),
        "data": {"name": data.name, "sha256": data.digest},
        "scores": {e.id: s.tolist() for e, s in zip(data, scores, strict=True)},
    }
    write_json(path, told)


def probe_digest(probe: Probe) -> str:
    """Returns the SHA-256 of a probe's kind, options, hooks and weights."""
    digest = hashlib.sha256(repr((probe.kind, probe.hook_names, probe.options())).encode())
    for name, x in sorted(probe.tensors().items()):
        digest.update(name.encode() + x.contiguous().numpy().tobytes())
    return digest.hexdigest()
