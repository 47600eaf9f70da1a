"""Scores of probes: one result however tokens are handed over, and an error bound."""

from __future__ import annotations

from collections.abc import Callable

import bitlens
import pytest
import torch
from bitlens import _core
from bitlens.interp.dictionaries import Features
from bitlens.interp.probes import (
    Aggregate,
    AttentionProbe,
    LogisticProbe,
    MassMeanProbe,
    MeanDifferenceProbe,
    NotFittedError,
    Probe,
    ProbeFileError,
)
from bitlens.interp.probes.fold import ScoreFold
from bitlens.interp.probes.rows import ragged
from bitlens.model.hooks.registry import same_bits
from support.error_bounds import Rounding
from support.probe_cases import planted
from support.random_models import random_model
from support.random_transcoders import random_cross_layer

HOOK = "blocks.0.hook_resid_post"
AGGREGATES = ("mean", "last", "max", "rolling:4", "ema:0.25")

MAKERS: dict[str, Callable[[], Probe]] = {
    "logistic": lambda: LogisticProbe(HOOK),
    "mean_difference": lambda: MeanDifferenceProbe(HOOK),
    "mass_mean": lambda: MassMeanProbe(HOOK),
    "attention": lambda: AttentionProbe(HOOK, n_heads=2),
    "multi_max": lambda: AttentionProbe(HOOK, aggregate="max", n_heads=3),
    **{a: lambda a=a: LogisticProbe(HOOK, aggregate=a, skip_first=1) for a in AGGREGATES},  # type: ignore[misc]
}


@pytest.fixture(scope="module")
def fitted() -> dict[str, Probe]:
    data = planted(longest=9)
    return {name: make().fit(data.x, data.y, mask=data.mask) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_streaming_has_the_bits_of_a_whole_pass(name: str, fitted: dict[str, Probe]) -> None:
    probe, data = fitted[name], planted(n=7, longest=23, seed=5)
    whole = probe.running_scores(data.x, data.mask)
    alone = torch.cat(
        [probe.running_scores(data.x[i : i + 1], data.mask[i : i + 1]) for i in range(7)]
    )
    stream, chunked = probe.stream(7), probe.stream(7)
    steps = torch.cat(
        [stream.push(data.x[:, t], data.mask[:, t]) for t in range(data.x.shape[1])], 1
    )
    chunks = torch.cat(
        [
            chunked.push(x, m)
            for x, m in zip(data.x.split(5, 1), data.mask.split(5, 1), strict=True)
        ],
        1,
    )
    real = data.mask.clone()
    real[:, : probe.skip_first] = False
    for found in (whole, alone, steps, chunks):
        assert torch.equal(~torch.isnan(found), real)
        assert same_bits(found[real], whole[real])
    assert same_bits(stream.scores, probe.decision_function(data.x, data.mask))
    # The control: tokens in another order are another conversation.
    turned = probe.running_scores(data.x.flip(1), data.mask.flip(1))
    assert not same_bits(turned[data.mask.flip(1) & ~turned.isnan()], whole[real])


@pytest.mark.parametrize("name", MAKERS)
def test_scores_do_not_depend_on_threads_or_instructions(
    name: str, fitted: dict[str, Probe]
) -> None:
    probe, data = fitted[name], planted(n=300, longest=30, seed=6)
    found = []
    for isa in _core.available_isas():
        for threads in (1, 3):
            _core.set_isa(isa)
            bitlens.set_num_threads(threads)
            found.append(probe.running_scores(data.x, data.mask).nan_to_num(7))
    assert all(same_bits(f, found[0]) for f in found)


def test_token_scores_are_within_their_bound() -> None:
    data = planted(n=20, longest=40, d=300, seed=8)
    probe = LogisticProbe(HOOK).fit(data.x, data.y, mask=data.mask)
    found = probe.token_scores(data.x, data.mask)[data.mask].double()
    x, w, b = data.x[data.mask].double(), probe.coef_.double(), probe.intercept_.double()
    bound = Rounding().linear(x, w, b)[:, 0]
    error = (found - (x @ w.T + b)[:, 0]).abs()
    assert (error <= bound).all()
    assert (error > bound / 1000).any()  # the bound says something


@pytest.mark.parametrize("aggregate", [*AGGREGATES, "softmax"])
@pytest.mark.parametrize("n", [1, 3, 200, 2000])
def test_folds_are_within_their_bound(aggregate: str, n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    rule = Aggregate.parse(aggregate)
    z = torch.randn(n, generator=generator)
    logits = 4 * torch.randn(n, generator=generator)
    fold = ScoreFold(rule, 1, 0.0, 1)
    given = logits[:, None] if rule.kind == "softmax" else None
    found = float(fold.push(z[:, None], torch.tensor([0, n]), given)[-1])
    bound = Rounding().fold(rule.kind, z, logits, rule.window, rule.weight)
    assert abs(found - _fold(rule, z.double(), logits.double())) <= bound


def _fold(rule: Aggregate, z: torch.Tensor, logits: torch.Tensor) -> float:
    if rule.kind == "mean":
        return float(z.mean())
    if rule.kind == "last":
        return float(z[-1])
    if rule.kind == "max":
        return float(z.max())
    if rule.kind == "softmax":
        return float((torch.softmax(logits, 0) * z).sum())
    if rule.kind == "rolling":
        return float(z.unfold(0, min(rule.window, len(z)), 1).mean(1).max())
    average = largest = float(z[0])
    for value in z[1:].tolist():
        average += rule.weight * (value - average)
        largest = max(largest, average)
    return largest


def test_an_attention_probe_is_softmax_over_tokens(fitted: dict[str, Probe]) -> None:
    probe, data = fitted["attention"], planted(n=20, longest=15, seed=9)
    assert isinstance(probe, AttentionProbe)
    found = probe.decision_function(data.x, data.mask)
    for i in range(20):
        x = data.x[i][data.mask[i]].double()
        p = torch.softmax(x @ probe.query_.double().T, 0)
        values = x @ probe.coef_.double().T
        expected = float((p * values).sum()) + float(probe.intercept_)
        assert abs(float(found[i]) - expected) < 1e-4 * float(values.abs().max())


def test_sparse_features_score_as_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """And are never made dense."""
    generator = torch.Generator().manual_seed(3)
    dense = torch.rand(120, 6, 80, generator=generator)
    dense = dense.where(torch.rand(dense.shape, generator=generator) < 0.1, 0.0)
    y = torch.arange(120) % 2
    dense[:, :, 7] += 0.5 * y[:, None]
    mask = torch.arange(6) < torch.randint(2, 7, (120, 1), generator=generator)
    features = Features.from_dense(dense)

    def refused(self: Features) -> torch.Tensor:
        raise AssertionError("features were made dense")

    for make in (
        lambda: LogisticProbe(HOOK, aggregate="max"),
        lambda: MeanDifferenceProbe(HOOK),
        lambda: AttentionProbe(HOOK, n_heads=2, max_iter=10),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Features, "dense", refused)
            probe = make().fit(features, y, mask=mask)
            found = probe.decision_function(features, mask)
        expected = probe.decision_function(dense, mask)
        scale = float((dense.abs() @ probe.coef_.abs().T).max()) + 1
        assert (found - expected).abs().max() < 200 * 2.0**-24 * scale
        assert probe.score(features, y, mask) > 0.9
    with pytest.raises(ValueError, match="LogisticProbe on features"):
        MassMeanProbe(HOOK).fit(features, y, mask=mask)


def test_features_of_a_cross_layer_transcoder_are_read_sparse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a layer of it, as a dictionary's are: a planted concept is found through them."""
    model = random_model("llama")
    transcoder = random_cross_layer(model, k=6)
    data = planted(n=120, d=model.config.d_model, strength=3.0)
    features = transcoder.encode(data.x[data.mask], 1)
    rows = ragged(features, data.mask.sum(1).tolist())
    expected = features.dense()

    def refused(self: Features) -> torch.Tensor:
        raise AssertionError("features were made dense")

    monkeypatch.setattr(Features, "dense", refused)
    indices = features.indices.clone()
    probe = LogisticProbe(HOOK, C=1.0).fit(rows, data.y)
    assert torch.equal(features.indices, indices), "a fit leaves what it reads as it is"
    assert probe.score(rows, data.y) > 0.85
    found = probe.own_scores(rows).double()
    exact = expected.double() @ probe.coef_[0].double() + probe.intercept_.double()
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("name", MAKERS)
def test_a_probe_comes_back_from_its_file(
    name: str, fitted: dict[str, Probe], tmp_path: object
) -> None:
    probe, data = fitted[name], planted(n=9, seed=11)
    probe.threshold_ = 0.25
    path = f"{tmp_path}/probe"
    probe.save(path)
    back = Probe.load(path)
    assert type(back) is type(probe)
    assert back.hook_name == HOOK
    assert (back.threshold_, back.options()) == (0.25, probe.options())
    assert same_bits(
        back.decision_function(data.x, data.mask), probe.decision_function(data.x, data.mask)
    )
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Probe.load(f"{tmp_path}/none")
    other = MassMeanProbe if probe.kind != "mass_mean" else LogisticProbe
    with pytest.raises(ProbeFileError, match=f"holds a {probe.kind} probe"):
        other.load(path)


def test_bad_input_is_refused() -> None:
    data = planted(n=20)
    probe = LogisticProbe(HOOK)
    with pytest.raises(NotFittedError, match="fit"):
        probe.decision_function(data.x)
    probe.fit(data.x, data.y, mask=data.mask)
    x = data.x.clone()
    x[3, 0, 0] = float("nan")
    for call in (probe.decision_function, probe.token_scores, lambda x, m: probe.fit(x, data.y)):
        with pytest.raises(ValueError, match="NaN"):
            call(x, data.mask)
    empty = data.mask.clone()
    empty[4] = False
    with pytest.raises(ValueError, match="conversation 4 has no token"):
        probe.decision_function(data.x, empty)
    with pytest.raises(ValueError, match="both classes"):
        probe.fit(data.x, torch.ones(20))
    with pytest.raises(ValueError, match="0 and 1 only"):
        probe.fit(data.x, torch.arange(20))
    with pytest.raises(ValueError, match=r"\[19\] labels for 20"):
        probe.fit(data.x, data.y[:19])
    with pytest.raises(ValueError, match="rows of 3 values"):
        probe.decision_function(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match="softmax"):
        LogisticProbe(HOOK, aggregate="softmax")
    with pytest.raises(ValueError, match="expected one of"):
        LogisticProbe(HOOK, aggregate="median")
    with pytest.raises(ValueError, match="positive"):
        LogisticProbe(HOOK, C=0)
