"""The campaign for files of probes: every kind, one file of it damaged."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import torch
from bitlens.interp.probes import AttentionProbe, LogisticProbe, Probe
from bitlens.interp.probes.probe_file import CONFIG, WEIGHTS
from fuzz.dictionaries import Files, damaged_file

D = 4


def probe_files(folder: Path, number: int) -> str:
    """Writes and reads mutation number i; returns what came of it."""
    rng = random.Random(f"probe {number}")
    files = dict(rng.choice(PROBES))
    name = CONFIG if rng.random() < 0.75 else WEIGHTS
    files[name] = damaged_file(name, files[name], rng)
    return judge_files(folder, files)


def judge_files(folder: Path, files: Files) -> str:
    """Writes a probe's files, reads them, and scores the origin; raises AssertionError for what
    must not be."""
    root = folder / "probe"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    probe = Probe.load(root)
    assert probe.hook_names
    assert -float("inf") < probe.threshold_ < float("inf")
    assert float(probe.metadata_.get("margin", 0)) >= 0
    assert bool(torch.isfinite(probe.coef_).all())
    n_positions = min(probe.skip_first, 100) + 2
    if probe.skip_first < n_positions and probe.aggregate.window < 1 << 12:
        found = probe.decision_function(torch.zeros(1, n_positions, probe.coef_.shape[1]))
        assert bool(torch.isfinite(found).all())
    return "a probe"


def _saved(probe: Probe) -> Files:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(12) % 2
    x = torch.randn(12, 3, D, generator=generator) + y[:, None, None]
    probe.fit(x, y)
    probe.threshold_ = 0.5
    probe.metadata_ = {
        "model_name": "tiny", "model_fingerprint": "ab" * 32, "policy": "fp32",
        "numerics_version": "3", "max_tokens": 64, "margin": 0.125,
        "guarantee": {"at_most": 0.05, "confidence": 0.95},
        "golden": {"numerics_version": "3", "token_ids": [[0, 3]], "scores": {"fp32": [0.25]}},
    }  # fmt: skip
    probe.report_ = {"auroc": 0.75}
    with tempfile.TemporaryDirectory() as folder:
        probe.save(folder)
        return {name: (Path(folder) / name).read_bytes() for name in (CONFIG, WEIGHTS)}


_HOOK = "blocks.0.hook_resid_post"

PROBES: tuple[Files, ...] = (
    _saved(LogisticProbe(_HOOK, aggregate="rolling:2")),
    _saved(LogisticProbe((_HOOK, "blocks.1.hook_resid_post"), aggregate="ema:0.5", skip_first=1)),
    _saved(AttentionProbe(_HOOK, n_heads=2, max_iter=3)),
    _saved(AttentionProbe(_HOOK, n_heads=2, max_iter=3, aggregate="max")),
)
