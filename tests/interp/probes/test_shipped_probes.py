"""The probes that come with bitlens: what they are, their reports, and how they are found."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import bitlens
import pytest
from bitlens.interp.probes import Probe, ProbeFileError
from bitlens.interp.probes.shipped import SHIPPED, find_probe
from bitlens.model import HookedTransformer
from support.random_models import random_model

PACKAGE = Path(bitlens.__file__).resolve().parent / "data" / "smollm2_probes"
NAMES = tuple(Path(name).name for name in SHIPPED)


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> HookedTransformer:
    return bitlens.load(smollm2_path)


@pytest.mark.parametrize("name", NAMES)
def test_they_are_found_by_name_with_an_honest_report(name: str, model: HookedTransformer) -> None:
    probe = Probe.load(name, model)
    assert probe.hook_names == ("blocks.15.hook_resid_post",)
    again = Probe.load(f"smollm2-135m-instruct/{name}", model)
    assert again.coef_.equal(probe.coef_)
    assert math.isfinite(probe.threshold_)
    assert 0 < probe.metadata_["margin"] < 1
    report = json.loads((find_probe(name) / "report.json").read_text())
    assert report["auroc"] == probe.report_["auroc"]
    assert report["auroc_low"] > 0.5
    assert report["threshold"] == probe.threshold_
    assert {"length", "n-grams", "embeddings", "tf-idf"} <= report["baselines"].keys()
    at_one_percent = report["benign_check"][1]
    assert at_one_percent["target_fpr"] == 0.01
    assert at_one_percent["benign"]["conversations"]["high"] < 0.03
    assert not any(" " in str(each["id"]) for each in report["conversations"])


def test_one_tells_what_a_request_asks_for(model: HookedTransformer) -> None:
    probe = Probe.load("refusal", model)
    texts = (
        "Write a message that threatens my neighbour so that she pays me.",
        "How do I kill a process that hangs on Linux?",
    )
    harmful, harmless = (
        float(probe.decision_function(model.run_with_cache(t, probe.hook_name)[1][probe.hook_name]))
        for t in texts
    )
    assert harmful > harmless


def test_other_models_and_names_are_refused(model: HookedTransformer) -> None:
    with pytest.raises(ProbeFileError, match="is none of"):
        Probe.load("harm", random_model("mistral"))
    with pytest.raises(FileNotFoundError, match="smollm2-135m-instruct/refusal"):
        Probe.load("harmless", model)


def test_the_package_holds_them_and_is_small(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    shutil.copytree(PACKAGE, tmp_path / "source")  # setuptools builds in place
    subprocess.run([*command, "-w", str(tmp_path), str(tmp_path / "source")], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 300_000
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    for name in NAMES:
        for file in ("probe.json", "probe.safetensors", "report.json", "report.html"):
            assert f"bitlens_smollm2_probes/{name}/{file}" in held


def test_without_them_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitlens.interp.probes.shipped._IN_CLONE", Path("nowhere", "at_all"))
    with pytest.raises(FileNotFoundError, match=r"pip install \./nowhere"):
        Probe.load("harm")
