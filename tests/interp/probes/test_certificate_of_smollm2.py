"""Certificates on 100,000 tokens of responses that people scored, fp32 against bf16."""

from __future__ import annotations

from pathlib import Path

import bitlens
import numpy as np
import pytest
import torch
from bitlens.interp.probes import LogisticProbe
from bitlens.interp.probes.certificate import certify_probe
from bitlens.interp.probes.data import open_dataset
from bitlens.interp.probes.protocol.scoring import running_scores
from bitlens.interp.probes.protocol.thresholds import threshold_of
from bitlens.interp.probes.reading import read, tokenize

HOOK = "blocks.15.hook_resid_post"


@pytest.mark.nightly
def test_no_certified_decision_differs_in_bf16(smollm2_path: Path) -> None:
    """And a tenth of the bound, the control, certifies decisions that do."""
    model, serving = (bitlens.load(smollm2_path, dtype=t) for t in ("fp32", "bf16"))
    data = open_dataset("pyrit-harm")
    rows = read(model, tokenize(model, data), [HOOK])[HOOK]
    probe = LogisticProbe(HOOK, skip_first=1, C=1e-3).fit(rows, torch.from_numpy(data.y))
    running = running_scores(probe, rows)
    probe.threshold_ = threshold_of([running[int(i)] for i in np.flatnonzero(data.y == 0)], 0.05)
    del rows, running
    found = certify_probe(model, serving, probe, data)
    decisions = found["decisions"]
    print(decisions, found["arithmetic"], found["margin"], found["margin_guarantee"])
    assert decisions["tokens"] >= 100_000
    assert decisions["flipped"] > 0
    assert decisions["certified_and_flipped"] == 0
    assert decisions["certified"]["value"] >= 0.5
    assert decisions["certified_and_flipped_with_a_tenth_of_the_bound"] > 0
    assert found["arithmetic"]["outside"] == 0
    assert 0 < found["arithmetic"]["largest_share_of_bound"] < 1
    # Of halves drawn alike, the ten largest distances all fall to the one that checks once in a
    # thousand; each one there lies outside the margin.
    assert found["margin_guarantee"]["outside"] < 10
