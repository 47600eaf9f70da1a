"""All stages of Constitutional AI under one manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import _core
from ...model.weights.atomic import write_atomically, write_json
from ..preferences import Gate
from ..rewards import Merit, OverOptimisation
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
    after = _After(stopped="" if gated.passed or read.ungated else "gate")
    if not after.stopped:
        after = _reinforced(stages, revisions, labels.form, weights)
    if not after.stopped:
        behaviour["rl"] = stages.behaviour("rl")
    manifest = _manifest(stages, after, gated, weights)
    write_json(folder / MANIFEST, manifest)
    found = CaiRun(
        after.stopped,
        cells_of(behaviour),
        rounds_of(revisions),
        gated,
        labels.summary,
        after.merits,
        after.over,
        manifest,
        folder / REPORT,
    )
    with write_atomically(found.report) as scratch:
        scratch.write_text(page(found), encoding="utf-8")
    return found


@dataclass(frozen=True)
class _After:
    """The part of a run behind its gate: what stopped it, and what its rewards are worth."""

    stopped: str = ""
    merits: dict[str, Merit] = field(default_factory=dict)
    over: OverOptimisation | None = None


def _reinforced(stages: Stages, revisions: list[Row], form: str, weights: dict[str, str]) -> _After:
    labelled = stages.labelled(stages.pairs(revisions), form)
    reward: SummedReward | None = None
    after = _After()
    if stages.config.rl["method"] != "dpo":
        reward, merits = stages.rewards(labelled)
        if not all(found.passed for found in merits.values()):
            return _After("merit", merits)
        after = _After("", merits, stages.over_optimised(reward))
    weights["rl"] = stages.reinforced(labelled, reward).weights_digest
    return after


def _manifest(
    stages: Stages, after: _After, gated: Gate, weights: dict[str, str]
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
        "merits": {name: found.to_dict() for name, found in after.merits.items()},
        "stopped": after.stopped,
        "weights": weights,
        "files": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
    }
