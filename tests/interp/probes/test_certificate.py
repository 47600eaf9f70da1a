"""Certified decisions never flip, bounds hold and say something, faults show."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from bitlens.interp.dictionaries import Features
from bitlens.interp.probes import (
    AttentionProbe,
    LogisticProbe,
    Probe,
    TokenRows,
    token_rows,
)
from bitlens.interp.probes.certificate import (
    RecordedScores,
    calibrate_margin,
    certify_probe,
    certify_rows,
    certify_scores,
    store_certificate,
)
from bitlens.interp.probes.certificate.decisions import running
from bitlens.interp.probes.certificate.exact import enclosed_scores
from bitlens.interp.probes.data import Dataset, Example
from bitlens.interp.probes.reading import TokenIds, read
from bitlens.interp.probes.rows import ragged
from bitlens.model.transformer import HookedTransformer
from bitlens.precision.contracts import bitlens_contract
from bitlens.precision.emulation import emulate
from bitlens.precision.faults import FAULTS
from bitlens.precision.inject import inject_fault
from support.probe_cases import planted
from support.random_models import byte_tokenizer, random_model

HOOK = "blocks.1.hook_resid_post"
NAMES = (
    *(f"linear {aggregate}" for aggregate in ("mean", "last", "max", "rolling:4", "ema:0.25")),
    "attention softmax",
    "attention max",
)


def fitted(name: str, width: int) -> Probe:
    data = planted(n=60, longest=9, d=width, strength=1.5)
    kind, _, aggregate = name.partition(" ")
    probe: Probe
    if kind == "linear":
        probe = LogisticProbe(HOOK, aggregate=aggregate, skip_first=1)
    else:
        probe = AttentionProbe(HOOK, n_heads=2, max_iter=10, aggregate=aggregate)
    return probe.fit(data.x, data.y, mask=data.mask)


@pytest.mark.parametrize("name", NAMES)
def test_scores_lie_within_their_bounds(name: str) -> None:
    """And a ten-thousandth of the bounds does not hold."""
    probe = fitted(name, 200)
    data = planted(n=12, longest=60, d=200, seed=4)
    rows = token_rows(7 * data.x, data.mask)
    shares = enclosed_scores(probe, rows).shares(running(probe, rows))
    assert shares.max() <= 1
    assert shares.max() > 1e-4


def test_features_are_enclosed_as_dense_rows_are() -> None:
    data = planted(n=10, longest=12, d=30, seed=2)
    dense = data.x.relu()
    probe = fitted("linear mean", 30)
    features = enclosed_scores(probe, token_rows(Features.from_dense(dense), data.mask))
    rows = enclosed_scores(probe, token_rows(dense, data.mask))
    assert np.abs(features.scores - rows.scores).max() < 1e-12
    own = running(probe, token_rows(Features.from_dense(dense), data.mask))
    assert features.shares(own).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_certified_decisions_never_flip(name: str) -> None:
    """Against rows rounded to three bits, at the median score, where a tenth of the bound errs."""
    probe = fitted(name, 24)
    data = planted(n=120, longest=40, seed=3, strength=0.3)
    a = token_rows(data.x, data.mask)
    b = token_rows(data.x.to(torch.float8_e4m3fn).float(), data.mask)
    probe.threshold_ = float(running(probe, a).median())
    found = certify_rows(probe, a, b)
    assert found.kept.all()
    assert found.flipped.any()
    assert not (found.certified & found.flipped).any()
    assert found.certified.mean() > 0.5
    assert (found.certified_by(0.1) & found.flipped).any()


def test_recorded_scores_are_held_against_ours() -> None:
    probe, data = fitted("linear mean", 24), planted(n=30, longest=20, seed=3, strength=0.3)
    rows = token_rows(data.x, data.mask)
    lengths = rows.without_first(1).starts.diff().tolist()
    own = running(probe, rows)
    probe.threshold_ = float(own.median())
    moved = own + 0.05 * torch.randn(own.shape, generator=torch.Generator().manual_seed(0))
    found = certify_scores(probe, rows, moved.split(lengths))
    assert found.flipped.any()
    assert not (found.certified & found.flipped).any()
    moved[3] = float("nan")
    assert not certify_scores(probe, rows, moved.split(lengths)).certified[3]
    with pytest.raises(ValueError, match="other tokens"):
        certify_scores(probe, rows, moved.split(lengths)[:-1])
    with pytest.raises(ValueError, match="other tokens"):
        certify_rows(probe, rows, rows.take(torch.arange(29)))


IDS = [[(7 * i * (s + 3) + s) % 256 for i in range(16)] for s in range(4)]


def rows_of(model: HookedTransformer) -> TokenRows:
    """One sequence a pass: an attention's contract is about one."""
    each = [read(model, TokenIds((tuple(ids),), len(ids)), [HOOK])[HOOK].rows for ids in IDS]
    return ragged(
        torch.cat([x for x in each if isinstance(x, torch.Tensor)]), [len(i) for i in IDS]
    )


def test_no_fault_of_the_model_flips_a_certified_decision() -> None:
    """Each fault at a random operation below the probe's hook. It leaves every bit, or the
    certificate is another one; a decision that it flips is undecided."""
    chooser = random.Random(0)
    flipped, moved, met = 0, 0, set()
    for architecture in ("gemma2", "qwen2"):
        model, serving = (random_model(architecture, seed=3, dtype=t) for t in ("fp32", "bf16"))
        probe = fitted("linear mean", model.config.d_model)
        a, plain = rows_of(model), rows_of(serving)
        probe.threshold_ = float(running(probe, a).median())
        expected = certify_rows(probe, a, plain)
        sites = [x for x in serving.op_addresses if x.startswith(("blocks.0", "blocks.1"))]
        for name, fault in FAULTS.items():
            fitting = [x for x in sites if fault.applies_to(serving.site(x).contract)]
            if name in met or not fitting:
                continue
            with inject_fault(serving, name, at=chooser.choice(fitting)):
                b = rows_of(serving)
            met.add(name)
            found = certify_rows(probe, a, b)
            assert not (found.certified & found.flipped).any(), name
            assert isinstance(b.rows, torch.Tensor)
            assert isinstance(plain.rows, torch.Tensor)
            same = torch.equal(b.rows, plain.rows)
            assert same == np.array_equal(found.bound, expected.bound), name
            flipped += int(found.flipped.sum())
            moved += not same
    assert len(met) >= 8
    assert moved >= 4
    assert flipped > 0


def test_no_fault_of_the_probe_goes_unnoticed() -> None:
    """Faults of the product that gives the scores: those that leave its bound are undecided."""
    data = planted(n=60, longest=3, d=64)
    probe = LogisticProbe(HOOK, aggregate="last").fit(data.x, data.y, mask=data.mask)
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(5))
    rows = token_rows(x)
    contract = bitlens_contract("matmul", "fp32")
    inputs = {"a": x, "b": probe.coef_.T.contiguous(), "bias": probe.intercept_}
    probe.threshold_ = float(running(probe, rows).median())
    seen = set()
    for name, fault in FAULTS.items():
        if not fault.applies_to(contract):
            continue
        scores = emulate(inputs, contract, fault)[:, 0].float()
        found = certify_rows(probe, rows, rows, scores_b=scores)
        assert not (found.certified & found.flipped).any(), name
        if not found.kept.all():
            seen.add(name)
            assert not found.certified[~found.kept].any()
    assert "tf32_inputs" in seen


def test_a_margin_covers_as_often_as_it_says() -> None:
    """300 margins of exponential distances; the share outside that was seen is no bound."""
    covered = {"bound": 0, "seen": 0}
    for seed in range(300):
        distances = np.random.default_rng(seed).exponential(size=(2, 50))
        margin, found = calibrate_margin(*distances)
        true = float(np.exp(-margin))
        covered["bound"] += true <= found["at_most"]
        covered["seen"] += true <= found["outside"] / found["conversations"]
    assert covered["bound"] >= 272  # of 285 expected; fewer are one in a thousand
    assert covered["seen"] < 225
    with pytest.raises(ValueError, match="others that check it"):
        calibrate_margin(np.ones(3), np.ones(0))
    with pytest.raises(ValueError, match="no finite number"):
        calibrate_margin(np.ones(3), np.array([np.nan]))


def texts(n: int = 24) -> Dataset:
    words = ["a", "word", "and", "another", "of", "some", "that", "stand", "here"]
    source = random.Random(1)
    made = [" ".join(source.choices(words, k=12)) + f" {i}" for i in range(n)]
    return Dataset("made", tuple(Example(f"m{i}", t, i % 2, f"m{i}") for i, t in enumerate(made)))


def test_a_certificate_is_stored_and_recorded(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    model, serving = (
        random_model("llama", seed=1, tokenizer=tokenizer, dtype=t) for t in ("fp32", "bf16")
    )
    probe = fitted("linear mean", model.config.d_model)
    report = certify_probe(model, serving, probe, texts(), record=tmp_path / "scores.json")
    assert (report["run_a"], report["run_b"], report["kind"]) == ("fp32", "bf16", "measured")
    assert report["decisions"]["certified_and_flipped"] == report["arithmetic"]["outside"] == 0
    assert 0 < report["margin"] <= report["largest_distance"]
    assert "word" not in json.dumps(report)
    store_certificate(probe, model, serving, report)
    probe.save(tmp_path / "probe", model)
    stored = Probe.load(tmp_path / "probe", serving).metadata_
    assert stored["margin"] == report["margin"]
    assert set(stored["golden"]["scores"]) == {"fp32", "bf16"}

    recorded = RecordedScores.load(tmp_path / "scores.json", probe, texts())
    same = certify_probe(model, recorded, probe, texts())
    assert same["largest_distance"] == same["decisions"]["flipped"] == 0
    other = certify_probe(serving, recorded, probe, texts())
    assert other["largest_distance"] == report["largest_distance"]
    with pytest.raises(ValueError, match="of another probe"):
        RecordedScores.load(
            tmp_path / "scores.json", fitted("linear last", model.config.d_model), texts()
        )
    with pytest.raises(ValueError, match="no scores of 'm24'"):
        RecordedScores.load(tmp_path / "scores.json", probe, texts(25))
    (tmp_path / "scores.json").write_text('{"format": "bitlens.probe-scores/1", "scores": []}')
    with pytest.raises(ValueError, match="write them with"):
        RecordedScores.load(tmp_path / "scores.json", probe, texts())
    with pytest.raises(ValueError, match="other weights"):
        certify_probe(model, random_model("llama", seed=2, tokenizer=tokenizer), probe, texts())
