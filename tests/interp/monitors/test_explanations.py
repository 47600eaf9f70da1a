"""Explanations add up to the score, and the fp32 model decides what bf16 cannot."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.monitors import Alarm, Explanation, Monitor
from bitlens.interp.monitors.explain import explain
from bitlens.interp.probes import MeanDifferenceProbe
from bitlens.model import HookedTransformer
from hypothesis import given
from hypothesis import strategies as st
from support.random_dictionaries import D_SAE, random_dictionary
from support.random_models import random_model

HOOK = "blocks.1.hook_resid_post"
MODEL = random_model("mistral")
AGGREGATES = ("mean", "last", "max", "rolling:3", "ema:0.25")


def probe_of(d: int, aggregate: str, seed: int) -> MeanDifferenceProbe:
    generator = torch.Generator().manual_seed(seed)
    probe = MeanDifferenceProbe(HOOK, aggregate=aggregate)
    probe.coef_ = torch.randn(1, d, generator=generator)
    probe.intercept_ = torch.randn(1, generator=generator)
    return probe


def total(explanation: Explanation) -> Fraction:
    """The exact sum of an explanation's terms."""
    terms = [*explanation.contributions, explanation.error, explanation.bias, explanation.rounding]
    return sum(map(Fraction, terms), Fraction(0))


@given(
    st.sampled_from(AGGREGATES),
    st.integers(3, 30),
    st.integers(0, 2),
    st.integers(0, 10_000),
    st.integers(-8, 8),
)
def test_terms_add_up_to_the_score(
    aggregate: str, n: int, skip_first: int, seed: int, exponent: int
) -> None:
    d = MODEL.config.d_model
    probe = probe_of(d, aggregate, seed)
    probe.skip_first = skip_first
    dictionary = random_dictionary(MODEL, HOOK, seed=seed)
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    score = probe.decision_function(x[None])[0]
    found = explain(probe, dictionary, x)
    assert np.float32(float(total(found))) == np.float32(float(score))
    assert abs(found.rounding) <= found.rounding_bound
    # A bound that holds anything would be none: it stays far below the terms' size.
    assert found.rounding_bound <= 1e-3 * (
        sum(map(abs, found.contributions)) + abs(found.error) + 1
    )
    assert list(map(abs, found.contributions)) == sorted(map(abs, found.contributions))[::-1]
    assert abs(math.fsum(found.token_shares) - float(score)) <= found.rounding_bound
    assert set(found.tokens) <= set(range(skip_first, n))
    if aggregate in ("last", "max"):
        assert len(found.tokens) == 1


def alarms_hold(n: int) -> None:
    """Explains n alarms; of every tenth, the features are exchanged, too: that is the control.

    A gap of size s lies inside a bound b by chance with probability near b / s, so of 10,000
    controls a few do: their number is held against the sum of those probabilities.
    """
    bounds, gaps = list[float](), list[float]()
    for seed in range(-(-n // LONGEST)):
        probe = probe_of(MODEL.config.d_model, AGGREGATES[seed % len(AGGREGATES)], seed)
        dictionary = random_dictionary(MODEL, HOOK, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(D_SAE, generator=generator)
        tensors = dict(dictionary.state_dict())
        shuffled = Dictionary(dictionary.cfg, tensors | {"W_dec": tensors["W_dec"][order]})
        x = torch.randn(LONGEST, MODEL.config.d_model, generator=generator)
        scores = probe.running_scores(x[None])[0]
        for t in range(LONGEST):
            found = explain(probe, dictionary, x[: t + 1])
            assert np.float32(float(total(found))) == scores[t].numpy()
            assert abs(found.rounding) <= found.rounding_bound
            if t % 10 == 0:
                others = explain(probe, shuffled, x[: t + 1]).contributions
                terms = [*others, found.error, found.bias]
                gap = math.fsum([float(scores[t]), *(-term for term in terms)])
                bounds.append(found.rounding_bound)
                gaps.append(abs(gap))
    inside = sum(gap <= bound for gap, bound in zip(gaps, bounds, strict=True))
    by_chance = sum(bounds) / float(np.median(gaps))
    assert by_chance < 1e-3 * len(gaps)
    assert inside <= by_chance + 4 * math.sqrt(by_chance)


LONGEST = 50


def test_alarms_hold_and_shuffled_features_do_not() -> None:
    alarms_hold(5 * LONGEST)


@pytest.mark.nightly
def test_a_hundred_thousand_alarms_hold() -> None:
    alarms_hold(100_000)


def test_an_alarm_is_explained() -> None:
    model = MODEL
    dictionary = random_dictionary(model, HOOK, seed=3)
    probe = probe_of(model.config.d_model, "mean", 3)
    monitor = Monitor(probe, threshold=-math.inf, on_alarm="flag", dictionary=dictionary)
    out = model.generate([[1, 2, 3], [4]], max_new_tokens=4, monitors=[monitor])
    assert len(out.alarms) == 2
    for alarm in out.alarms:
        assert alarm.explanation is not None
        assert np.float32(float(total(alarm.explanation))) == np.float32(alarm.score)
        assert alarm.explanation.features
        assert "tokens" not in alarm.to_dict()


class Watchful:
    """A bf16 model, its fp32 twin, and a probe whose threshold lies between their scores."""

    def __init__(self) -> None:
        self.bf16: HookedTransformer = random_model("mistral", dtype="bf16")
        self.fp32: HookedTransformer = random_model("mistral", dtype="fp32")
        self.probe = probe_of(self.bf16.config.d_model, "last", 5)
        self.tokens = [1, 2, 3, 4, 5, 6, 7, 8]
        self.low, self.high = (self._score(m) for m in (self.bf16, self.fp32))

    def _score(self, model: HookedTransformer) -> float:
        x = model.run_with_cache(torch.tensor([self.tokens]), HOOK)[1][HOOK]
        return float(self.probe.decision_function(x.float()))

    def alarms(self, threshold: float, margin: float, second: bool, **options: Any) -> list[Alarm]:
        monitor = Monitor(
            self.probe, threshold=threshold, margin=margin, on_alarm="flag",
            fp32_model=self.fp32 if second else None, **options,
        )  # fmt: skip
        out = self.bf16.generate([self.tokens], max_new_tokens=1, monitors=[monitor])
        return [a for a in out.alarms if a.position == len(self.tokens) - 1]


def test_what_bf16_cannot_decide() -> None:
    w = Watchful()
    assert w.low != w.high
    middle, gap = (w.low + w.high) / 2, abs(w.low - w.high)
    (undecided,) = w.alarms(middle, gap, second=False)
    assert undecided.decided_by == "undecided"
    assert undecided.score == w.low
    decided = w.alarms(middle, gap, second=True)
    if w.high > middle:
        (alarm,) = decided
        assert alarm.decided_by == "fp32"
        assert alarm.score == w.high
    else:
        assert decided == []
    sure = w.alarms(w.low - 10 * gap, gap, second=True)
    assert all(alarm.decided_by == "score" for alarm in sure)


def test_an_undecided_row_goes_on() -> None:
    w = Watchful()
    monitor = Monitor(w.probe, threshold=w.low, margin=1e9, on_alarm="stop")
    out = w.bf16.generate([w.tokens], max_new_tokens=3, min_new_tokens=3, monitors=[monitor])
    assert out.n_new == [3]
    assert {alarm.decided_by for alarm in out.alarms} == {"undecided"}


def test_dictionaries_of_another_hook_are_refused() -> None:
    dictionary = random_dictionary(MODEL, "blocks.0.hook_resid_pre")
    with pytest.raises(ValueError, match="dictionary: reads"):
        Monitor(probe_of(24, "mean", 0), dictionary=dictionary)
