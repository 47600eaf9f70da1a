"""docs/probes.md runs, and pages escape what users wrote."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import bitlens
import numpy as np
import pytest
from bitlens.interp.probes.page import render
from bitlens.interp.probes.protocol.judging import judge

PAGE = Path(bitlens.__file__).resolve().parent / "docs" / "probes.md"
BENIGN = [
    "garden",
    "bread",
    "river",
    "music",
    "summer",
    "picture",
    "travel",
    "window",
    "paper",
    "friend",
]
MARKED = [
    "anger",
    "threat",
    "insult",
    "menace",
    "fury",
    "spite",
    "malice",
    "venom",
    "wrath",
    "scorn",
]


def test_the_documents_example_runs(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On sentences whose positives take half of their words from another list."""
    monkeypatch.chdir(tmp_path)
    source = random.Random(0)
    lines = []
    for i in range(40):
        words = source.sample(BENIGN, 4) + source.sample(MARKED if i % 2 else BENIGN, 4)
        lines.append(json.dumps({"text": f"Number {i}: {' '.join(words)}", "label": i % 2}))
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 10
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    assert namespace["found"].report["auroc"] > 0.9
    assert namespace["same"].coef_.equal(namespace["probe"].coef_)
    page = (tmp_path / "probe" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "menace" not in page + (tmp_path / "probe" / "report.json").read_text()


def test_what_users_wrote_is_escaped_and_no_script_runs() -> None:
    y = np.arange(60) % 2.0
    scores = y + np.random.default_rng(0).normal(size=60)
    found = judge(scores, y, [str(i) for i in range(60)], {"length": scores[::-1].copy()})
    report = {
        **found,
        "data": {"name": "<b>mine</b>", "n": 60, "n_positive": 30, "n_groups": 60, "removed": {}},
        "left_out": {"category": {"<i>c</i>": {"auroc": 0.5, "ece": 0.1,
                                               "baselines": {"length": 0.5},
                                               "n_positive": 1, "n_negative": 1}}},
    }  # fmt: skip
    page = render(report)
    assert "&lt;b&gt;mine&lt;/b&gt;" in page
    assert "&lt;i&gt;c&lt;/i&gt;" in page
    assert "<b>mine" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    for warning in found["warnings"]:
        assert warning.split(":")[0] in page
