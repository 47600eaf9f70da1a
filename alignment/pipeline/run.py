"""All stages of Constitutional AI under one manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import _core
from ...model.weights.atomic import write_atomically, write_json
from ..preferences import Gate
from ..rewards import Merit
from ..row_file import Row
from .behaviour import cells_of
from .config import CaiConfig
from .page import page
from .result import CaiRun
from .reward import SummedReward
from .rounds import rounds_of
from .stages import Say, Stages

MANIFEST, REPORT = "manifest.json", "report.html"


def run(
    config: str | Path | Mapping[str, Any] | CaiConfig,
    output: str | Path,
    *,
    progress: Say | None = None,
) -> CaiRun:
    """Runs every stage: answers, critique and revision, SL-CAI, the gate, AI labels, RL-CAI.

    Each stage goes on where it was killed; called again at its end, the run is read from the
    folder. Equal manifests give equal bits of weights, rows and report, whatever the threads and
    the interruptions.

    Args:
        config: A TOML or JSON file, settings by name, or a `CaiConfig`.
        output: The folder of the run: revisions.jsonl, sl/, pairs.jsonl, labels.jsonl, gate.json,
            rl/, answers of each stage, manifest.json and report.html.
        progress: Called with each stage's name.

    Raises:
        ValueError: naming a setting, prompt, pair or principle; for a folder of another run.
        OSError: a file that cannot be read or written.
    """
    read, folder = CaiConfig.read(config), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(read, folder, progress or (lambda _: None))
    behaviour = {"before": stages.behaviour("before")}
    revisions = stages.revisions()
    weights = {"sl": stages.supervised(revisions).weights_digest}
    behaviour["sl"] = stages.behaviour("sl")
    labels, gated = stages.gated()
    merits: dict[str, Merit] = {}
    stopped = "" if gated.passed or read.ungated else "gate"
    if not stopped:
        stopped, merits = _reinforced(stages, revisions, labels.form, weights)
    if not stopped:
        behaviour["rl"] = stages.behaviour("rl")
    manifest = _manifest(stages, stopped, gated, weights, merits)
    write_json(folder / MANIFEST, manifest)
    cells, rounds = cells_of(behaviour), rounds_of(revisions)
    found = CaiRun(stopped, cells, rounds, gated, labels.summary, merits, manifest, folder / REPORT)
    with write_atomically(found.report) as scratch:
        scratch.write_text(page(found), encoding="utf-8")
    return found


def _reinforced(
    stages: Stages, revisions: list[Row], form: str, weights: dict[str, str]
) -> tuple[str, dict[str, Merit]]:
    """Runs what follows the gate; returns what stopped it, and the merits of rewards."""
    labelled = stages.labelled(stages.pairs(revisions), form)
    reward: SummedReward | None = None
    merits: dict[str, Merit] = {}
    if stages.config.rl["method"] != "dpo":
        reward, merits = stages.rewards(labelled)
        if not all(found.passed for found in merits.values()):
            return "merit", merits
    weights["rl"] = stages.reinforced(labelled, reward).weights_digest
    return "", merits


def _manifest(
    stages: Stages, stopped: str, gated: Gate, weights: dict[str, str], merits: dict[str, Merit]
) -> dict[str, Any]:
    files = sorted(stages.folder.glob("*.jsonl"))
    return {
        "numerics_version": _core.numerics_version,
        "config": json.loads(json.dumps(stages.config.to_dict())),
        "model": stages.first_digest,
        "policy": stages.model.ops.policy.name,
        "constitution": stages.constitution.digest,
        "data": stages.data_digest,
        "ungated": stages.config.ungated,
        "gate": gated.to_dict(),
        "merits": {name: found.to_dict() for name, found in merits.items()},
        "stopped": stopped,
        "weights": weights,
        "files": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
    }
