"""docs/probes.md's figures of PyRIT's responses, by the protocol that was fixed before them."""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
from bitlens.interp.probes.data import open_dataset
from bitlens.interp.probes.protocol import ProbeConfig, default_hooks, train_probe


@pytest.mark.nightly
def test_a_probe_beats_surface_cues_on_responses_that_people_scored(
    smollm2_path: Path, tmp_path: Path
) -> None:
    """And no text of them is in what it writes: no six words in a row."""
    model = bitlens.load(smollm2_path)
    data = open_dataset("pyrit-harm")
    found = train_probe(model, data, ProbeConfig(default_hooks(model)), output=tmp_path)
    report = found.report
    assert report["auroc"] >= 0.87
    at_1_percent = report["recall"][1]
    assert (at_1_percent["target_fpr"], at_1_percent["allowed"]) == (0.01, 4)
    assert at_1_percent["recall"]["value"] >= 0.20
    assert report["difference"]["low"] > 0
    assert report["ece"] < 0.06
    assert any(w.startswith("length confound") for w in report["warnings"])
    written = [p.read_bytes().decode("utf-8", "replace") for p in tmp_path.rglob("*.*")]
    assert len(written) == 4
    for example in data:
        words = example.text.split()
        pieces = [" ".join(words[i : i + 6]) for i in range(max(1, len(words) - 5))]
        assert not [
            piece for piece in pieces if len(piece) > 20 and any(piece in w for w in written)
        ]
