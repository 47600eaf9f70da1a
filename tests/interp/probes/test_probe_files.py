"""Probe files know their model, and notice where their scores would be others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens import _core
from bitlens.interp.probes import LogisticProbe, Probe, ProbeFileError
from bitlens.interp.probes.golden import golden_scores, with_golden_scores
from bitlens.interp.probes.probe_file import CONFIG
from bitlens.model.transformer import HookedTransformer
from support.probe_cases import planted
from support.random_models import random_model

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", seed=1)


@pytest.fixture
def saved(model: HookedTransformer, tmp_path: Path) -> Path:
    data = planted(n=40, longest=6, d=model.config.d_model, strength=2)
    probe = LogisticProbe(HOOK, skip_first=1).fit(data.x, data.y, mask=data.mask)
    probe.save(tmp_path / "probe", model)
    return tmp_path / "probe"


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    found = json.loads((path / CONFIG).read_text())
    change(found)
    (path / CONFIG).write_text(json.dumps(found))
    return path


def older(found: dict[str, Any]) -> None:
    assert found["metadata"]["numerics_version"] == _core.numerics_version
    found["metadata"]["numerics_version"] = "of old"


def test_a_file_says_where_its_probe_comes_from(saved: Path, model: HookedTransformer) -> None:
    found = json.loads((saved / CONFIG).read_text())
    assert (found["format"], found["normalisation"]) == (
        "bitlens.probe/1",
        "folded into the weights",
    )
    told = found["metadata"]
    assert (told["model_name"], told["policy"]) == (model.name, "fp32")
    assert told["model_fingerprint"] == model.fingerprint()
    probe = Probe.load(saved, model)
    ids = told["golden"]["token_ids"]
    assert [len(i) for i in ids] == [4, 18, 41]
    assert golden_scores(probe, model, ids) == told["golden"]["scores"]["fp32"]


def test_a_file_keeps_no_path_of_the_machine_it_was_made_on(
    saved: Path, model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe.load(saved, model)
    monkeypatch.setattr(model, "name", "/home/somebody/models/tiny.gguf")
    probe.save(saved, model)
    text = (saved / CONFIG).read_text()
    assert json.loads(text)["metadata"]["model_name"] == "tiny.gguf"
    assert "somebody" not in text
    assert Probe.load(saved, model).kind == "logistic"


def test_files_from_before_these_fields_are_read(saved: Path, model: HookedTransformer) -> None:
    def plain(found: dict[str, Any]) -> None:
        del found["format"], found["normalisation"], found["metadata"]["golden"]
        del found["metadata"]["policy"]

    assert Probe.load(changed(saved, plain), model).kind == "logistic"


def test_golden_scores_decide_where_numerics_changed(saved: Path, model: HookedTransformer) -> None:
    Probe.load(changed(saved, older), model)  # the same scores: nothing moved

    def moved(found: dict[str, Any]) -> None:
        scores = found["metadata"]["golden"]["scores"]["fp32"]
        scores[1] = float(torch.nextafter(torch.tensor(scores[1]), torch.tensor(9.0)))

    with pytest.raises(ProbeFileError, match=r"1 of 3 golden scores moved, by .*: train it again"):
        Probe.load(changed(saved, moved), model)
    with pytest.warns(UserWarning, match="1 of 3 golden scores moved"):
        Probe.load(saved, model, strict=False)
    Probe.load(saved)  # without a model there is nothing to run


def test_scores_that_cannot_be_compared_are_refused(saved: Path, model: HookedTransformer) -> None:
    """Under a policy without golden scores, and for a file without any."""
    serving = random_model("llama", seed=1, dtype="bf16")
    probe = Probe.load(saved, serving)
    with pytest.raises(ProbeFileError, match="no golden scores under bf16"):
        Probe.load(changed(saved, older), serving)
    probe.metadata_ = with_golden_scores(probe, serving)
    probe.save(saved)
    assert set(probe.metadata_["golden"]["scores"]) == {"fp32", "bf16"}
    assert (
        probe.metadata_["golden"]["scores"]["fp32"] != probe.metadata_["golden"]["scores"]["bf16"]
    )
    Probe.load(changed(saved, older), serving)
    changed(saved, lambda found: found["metadata"].pop("golden"))
    with pytest.raises(ProbeFileError, match="no golden scores under fp32"):
        Probe.load(saved, model)


def test_another_model_is_refused(saved: Path, model: HookedTransformer) -> None:
    other = random_model("llama", seed=2)
    with pytest.raises(ProbeFileError, match=r"fingerprint .*: train it again"):
        Probe.load(saved, other)
    with pytest.warns(UserWarning, match="fingerprint"):
        Probe.load(saved, other, strict=False)
    changed(saved, lambda found: found["metadata"].pop("model_fingerprint"))
    Probe.load(saved, model)
    changed(saved, lambda found: found["metadata"].update(model_name="another"))
    with pytest.raises(ProbeFileError, match="trained on another, not on"):
        Probe.load(saved, model)
    changed(saved, lambda found: found.update(hook_names=["blocks.9.hook_resid_post"]))
    with pytest.raises(ProbeFileError, match="is none of"):
        Probe.load(saved, model)
    changed(saved, lambda found: found.update(hook_names=[HOOK, "blocks.0.hook_resid_post"]))
    with pytest.raises(ProbeFileError, match=r"84 wide in .*; the probe expects 42"):
        Probe.load(saved, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "bitlens.probe/2"}, "this version of bitlens reads"),
        ({"normalisation": "z-scores"}, "this version of bitlens reads"),
        ({"threshold": float("nan")}, "threshold nan: expected a finite number"),
        ({"threshold": 10**400}, "damaged"),
        ({"hook_names": "blocks.1"}, "hook_names: expected a list"),
        ({"metadata": {"margin": -1}}, "metadata: margin: expected a finite number"),
        ({"metadata": {"golden": {"numerics_version": "2"}}}, "metadata: golden"),
        ({"metadata": {"guarantee": {"at_most": 1.5, "confidence": 1}}}, "metadata: guarantee"),
        ({"options": {"aggregate": 3}}, "aggregate 3: expected a name"),
        ({"options": {"skip_first": 1.0}}, "expected a whole number"),
    ],
)
def test_a_damaged_field_is_named(saved: Path, change: dict[str, Any], message: str) -> None:
    changed(saved, lambda found: found.update(change))
    with pytest.raises(ProbeFileError, match=re.escape(message)):
        Probe.load(saved)


def test_a_threshold_that_is_no_number_is_not_saved(saved: Path, tmp_path: Path) -> None:
    probe = Probe.load(saved)
    probe.threshold_ = float("inf")
    with pytest.raises(ValueError, match="expected a finite number"):
        probe.save(tmp_path / "absurd")
