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
from ..row_file import Row
from .behaviour import cells_of
from .config import CaiConfig
from .iterations import Reinforced, reinforced
from .page import page
from .result import CaiRun
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
    after = reinforced(stages, revisions, labels.form, gated)
    if not after.stopped:
        weights["rl"] = [each.weights for each in after.iterations if each.weights][-1]
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
        iterations=after.iterations,
        distances=distances,
        insides=insides,
        manifest=manifest,
        report=folder / REPORT,
    )
    with write_atomically(found.report) as scratch:
        scratch.write_text(page(found), encoding="utf-8")
    return found


def _rounds(stages: Stages, revisions: list[Row], file: str, form: str) -> list[Round]:
    if not revisions:
        return []
    return rounds_of(revisions, stages.preferred(revisions, file, form))


def _manifest(
    stages: Stages, after: Reinforced, gated: Gate, weights: dict[str, str]
) -> dict[str, Any]:
    folder = stages.folder
    files = sorted([*folder.glob("*.jsonl"), *folder.glob("iteration-*/*.jsonl")])
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
        "iterations": [each.weights for each in after.iterations],
        "files": {
            f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()
            for f in files
        },
    }
