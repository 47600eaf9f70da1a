"""The protocol is honest: planted truth is found, noise is not, confounds and leaks are named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from bitlens.interp.probes.figures import (
    auroc,
    calibration_error,
    recall_at,
    resampled,
    threshold_at,
)
from bitlens.interp.probes.protocol.alarms import afterwards, alarm_figures
from bitlens.interp.probes.protocol.choice import KINDS, Material, ProbeConfig, choose
from bitlens.interp.probes.protocol.cross_validation import cross_validate, leave_one_out
from bitlens.interp.probes.protocol.judging import judge
from bitlens.interp.probes.rows import token_rows
from bitlens.interp.probes.selection import grouped_folds
from support.probe_cases import planted

HOOKS = ("noise", "planted")


def material(
    config: ProbeConfig, y: torch.Tensor | None = None, n: int = 200, strength: float = 1.5
) -> Material:
    """One hook of noise, one with a concept; four conversations a group."""
    data = planted(n=n, longest=8, d=12, strength=strength)
    noise = torch.randn(data.x.shape, generator=torch.Generator().manual_seed(9))
    rows = {"noise": token_rows(noise, data.mask), "planted": token_rows(data.x, data.mask)}
    labels = data.y if y is None else y
    return Material(config, rows, labels.double().numpy(), [str(i // 4) for i in range(n)])


def config(kind: str = "logistic", *hooks: str) -> ProbeConfig:
    names = hooks or HOOKS
    return ProbeConfig(
        tuple((h,) for h in names),
        kind,
        aggregates=("mean", "max"),
        strengths=(1e-3, 1e-1),
        skip_first=0,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_probe_finds_a_planted_concept(kind: str) -> None:
    found = cross_validate(config(kind), material(config(kind)), {})
    assert all(c.hook_names == ("planted",) for c in found.choices)
    assert auroc(found.scores, material(config(kind)).y) > 0.9
    for i, running in enumerate(found.running):
        assert float(running[-1]) == found.scores[i]


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_labels_stay_within_chance(kind: str) -> None:
    """AUROC of independent scores has variance (n + 1) / (12 a b), by Mann and Whitney; folds add
    dependence, so four standard deviations."""
    generator = torch.Generator().manual_seed(4)
    y = (torch.randperm(200, generator=generator) < 100).long()
    only = config(kind, "noise")
    found = cross_validate(only, material(only, y), {})
    assert abs(auroc(found.scores, y.double().numpy()) - 0.5) < 4 * math.sqrt(201 / 12 / 1e4)


def test_the_test_split_chooses_nothing() -> None:
    """Other labels on the test split leave choice and fit as they are; on the training split they
    change the fit, which is the control."""
    data = material(config())
    train, test = next(grouped_folds(data.y, data.groups))
    chosen = choose(config(), data, train)
    flipped = data.y.copy()
    flipped[test] = 1 - flipped[test]
    other = material(config(), torch.from_numpy(flipped))
    assert choose(config(), other, train) == chosen
    found, same = (cross_validate(config(), m, {}) for m in (data, data))
    assert np.array_equal(found.scores, same.scores)
    flipped = data.y.copy()
    flipped[train] = 1 - flipped[train]
    turned = material(config(), torch.from_numpy(flipped))
    assert auroc(cross_validate(config(), turned, {}).scores, data.y) < 0.5


def test_groups_are_never_split() -> None:
    data = material(config())
    held = np.array(data.groups)
    for train, test in grouped_folds(data.y, data.groups):
        assert not set(held[train]) & set(held[test])
    left = leave_one_out(config("mean_difference"), data, ["a", "b"] * 100, {})
    assert left == {}  # every group is on both sides: nothing is left to train on
    found = leave_one_out(
        config("mean_difference"), data, [str(int(g) % 2) for g in data.groups], {}
    )
    assert set(found) == {"0", "1"}
    assert all(auroc(each["scores"], each["y"]) > 0.9 for each in found.values())


def test_a_length_confound_is_named() -> None:
    generator = np.random.default_rng(0)
    y = np.arange(300) % 2.0
    lengths = generator.normal(5 + y, 1)
    scores = generator.normal(y, 1)
    groups = [str(i) for i in range(300)]
    warned = judge(scores, y, groups, {"length": lengths})["warnings"]
    assert any(w.startswith("length confound: length alone") for w in warned)
    assert any(w.startswith("not shown to beat surface cues") for w in warned)
    fair = judge(3 * y + scores, y, groups, {"length": generator.normal(size=300)})["warnings"]
    assert not any("length" in w for w in fair)
    assert any("too few negatives for a false-positive rate of 0.001" in w for w in fair)


def test_figures_are_those_of_their_definitions() -> None:
    generator = np.random.default_rng(1)
    y = (generator.random(90) < 0.4).astype(float)
    scores = np.round(generator.normal(y, 1), 1)  # with ties
    pairs = [(a > b) + (a == b) / 2 for a in scores[y == 1] for b in scores[y == 0]]
    assert auroc(scores, y) == pytest.approx(np.mean(pairs), abs=1e-12)
    for rate in (0.0, 0.05, 0.2):
        point = recall_at(scores, y, rate)
        assert point.false_positives.count <= rate * (y == 0).sum()
        lower = np.max(scores[scores < point.threshold], initial=-math.inf)
        if math.isfinite(lower):  # no smaller threshold would do
            assert (scores[y == 0] > lower).sum() > rate * (y == 0).sum()
        assert point.recall.low <= point.recall.value <= point.recall.high
    assert calibration_error(np.array([0.2] * 10), np.array([0.0] * 8 + [1.0] * 2), 1) == (
        pytest.approx(0, abs=1e-12)
    )
    assert calibration_error(np.array([0.9] * 10), np.zeros(10), 1) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="both classes"):
        auroc(scores, np.ones(90))
    with pytest.raises(ValueError, match="below 1"):
        threshold_at(scores, 1.0)
    with pytest.raises(ValueError, match="benign"):
        threshold_at(np.array([]), 0.1)


def test_the_interval_covers_and_is_paired() -> None:
    """The true AUROC of unit normals one apart is Phi(1 / sqrt 2) = .760; 30 data sets, whose
    groups hold three equal scores each: 95% intervals that ignore groups cover too little."""
    covered = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        y = np.repeat(np.arange(60) % 2.0, 3)
        scores = np.repeat(generator.normal(np.arange(60) % 2, 1), 3)
        groups = [str(i // 3) for i in range(180)]
        found = judge(scores, y, groups, {"same": scores})
        covered += found["auroc_low"] <= 0.760 <= found["auroc_high"]
        assert found["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        if seed == 0:
            assert resampled([scores], y, groups).shape == (1, 2000)
    assert covered >= 25  # of a binomial with 30 trials of .95, fewer are one in 300


def test_alarms_count_conversations_and_tokens() -> None:
    running = [torch.tensor(r) for r in ([0.0, 2.0, 0.0], [0.0] * 20, [3.0], [0.0, 0.0, 1.5, 9.0])]
    found = alarm_figures(running, np.array([0.0, 0.0, 1.0, 1.0]), 1.0)
    assert found["benign"]["conversations"]["count"] == 1
    assert (found["benign"]["tokens_above"], found["benign"]["tokens"]) == (1, 23)
    assert found["benign"]["alarms_per_million_tokens"] == pytest.approx(1e6 / 23)
    assert found["harmful"]["conversations"]["value"] == 1
    assert found["tokens_until_alarm"] == [1.5, 2.0, 2.5]
    (only,) = found["benign"]["growth"]  # one benign conversation is as long as 16 tokens
    assert (only["tokens"], only["count"], only["of"]) == (16, 0, 1)
    assert found["harmful"]["tokens_leaked"] == {"share": 0.4, "quartiles": [0.5, 1.0, 1.5]}
    missed = alarm_figures(running, np.array([0.0, 1.0, 1.0, 1.0]), 1.0)
    assert missed["harmful"]["tokens_leaked"]["share"] == pytest.approx(22 / 25)
    whole = afterwards(running, np.array([0.0, 0.0, 1.0, 1.0]), 1.0)
    assert (whole["benign"]["count"], whole["harmful"]["count"]) == (0, 2)


def test_too_little_to_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="3 groups for 5 folds"):
        next(grouped_folds(np.array([0.0, 1, 0]), ["a", "b", "c"]))
    with pytest.raises(ValueError, match="expected one of"):
        ProbeConfig((("a",),), kind="oracle")
    with pytest.raises(ValueError, match="a candidate each"):
        ProbeConfig(())
