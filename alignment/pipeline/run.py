"""All stages of Constitutional AI under one manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ... import _core
from ...model.weights.atomic import write_atomically, write_json
from ..preferences import Gate
from ..rewards import Merit, OverOptimisation
from ..row_file import Row
from .behaviour import cells_of
from .config import CaiConfig
from .optimisation_path import Batch
from .page import page
from .result import CaiRun
from .reward import SummedReward
from .rounds import Round, rounds_of
from .stages import Say, Stages

MANIFEST, REPORT = "manifest.json", "report.html"


def run(
    config: str | Path | Mapping[str, Any] | CaiConfig,
    output: str | Path,
    *,
    progress: Say | None = None,
) -> CaiRun:
    """Runs every stage: answers, critique and revision, helpful answers, SL-CAI, the gate, AI
    labels and RL-CAI, and reads the model before and after.

    Each stage goes on where it was killed; called again at its end, the run is read from the
    folder. Equal manifests give equal bits of weights, rows and report, whatever the threads and
    the interruptions.

    Args:
        config: A TOML or JSON file, settings by name, or a `CaiConfig`.
        output: The folder of the run: revisions.jsonl, helpful.jsonl, sl/, pairs.jsonl,
            labels.jsonl, gate.json, rl/, answers, distances and insides of each stage,
            manifest.json and report.html.
        progress: Called with each stage's name.

    Raises:
        ValueError: naming a setting, prompt, pair or principle; for a folder of another run.
        OSError: a file that cannot be read or written.
        RuntimeError: `insides` on the stand-in without scikit-learn, which fits the probe.
    """
    read, folder = CaiConfig.read(config), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(read, folder, progress or (lambda _: None))
    behaviour = {"before": stages.behaviour("before")}
    revisions, uncritiqued = stages.revisions(), stages.uncritiqued()
    helpful = stages.helpful()
    weights = {"sl": stages.supervised(revisions, helpful).weights_digest}
    behaviour["sl"] = stages.behaviour("sl")
    distances, insides = [stages.divergence("sl")], stages.moved("sl")
    labels, gated = stages.gated()
    rounds = _rounds(stages, revisions, "rounds.jsonl", labels.form)
    ablation = _rounds(stages, uncritiqued, "rounds-uncritiqued.jsonl", labels.form)
    after = _After(stopped="" if gated.passed or read.ungated else "gate")
    if not after.stopped:
        after = _reinforced(stages, revisions, labels.form, weights)
    if not after.stopped:
        behaviour["rl"] = stages.behaviour("rl")
        distances.append(stages.divergence("rl"))
        insides += stages.moved("rl")
    manifest = _manifest(stages, after, gated, weights)
    write_json(folder / MANIFEST, manifest)
    found = CaiRun(
        stopped=after.stopped,
        cells=cells_of(behaviour),
        rounds=rounds,
        ablation=ablation,
        n_helpful=len(helpful),
        gate=gated,
        labels=labels.summary,
        merits=after.merits,
        over=after.over,
        path=after.path,
        distances=distances,
        insides=insides,
        manifest=manifest,
        report=folder / REPORT,
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
    path: list[Batch] = field(default_factory=list)


def _rounds(stages: Stages, revisions: list[Row], file: str, form: str) -> list[Round]:
    if not revisions:
        return []
    return rounds_of(revisions, stages.preferred(revisions, file, form))


def _reinforced(stages: Stages, revisions: list[Row], form: str, weights: dict[str, str]) -> _After:
    labelled = stages.labelled(stages.pairs(revisions), form)
    reward: SummedReward | None = None
    after = _After()
    if stages.config.rl["method"] != "dpo":
        reward, merits = stages.rewards(labelled)
        if not all(found.passed for found in merits.values()):
            return _After("merit", merits)
        after = _After("", merits, stages.over_optimised(reward))
    trained, path = stages.reinforced(labelled, reward)
    weights["rl"] = trained.weights_digest
    return replace(after, path=path)


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
