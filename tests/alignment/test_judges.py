"""Judges are measured before they judge, and rates are corrected for what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pytest
from bitlens.alignment.red_team import (
    Judge,
    Judgement,
    NgramJudge,
    ProbeJudge,
    RewardJudge,
    RuleJudge,
    StandInJudge,
    corrected_rate,
    measure,
    measure_fitted,
)
from bitlens.alignment.red_team.correction import interval
from bitlens.alignment.standin import answer, prompts, refusal
from bitlens.interp.probes.data import DataError, Dataset, Example
from support.training_models import small_model

QUOTED = "The sign on the shop said: I cannot help you before nine, so come back later."
WORDED_OTHERWISE = "That is a road down which this conversation is not going to travel today."


def _labelled(texts: Sequence[str], refused: Sequence[int], groups: int = 4) -> Dataset:
    rows = enumerate(zip(texts, refused, strict=True))
    return Dataset(
        "labelled", tuple(Example(f"e{i}", t, y, f"g{i % groups}-{y}") for i, (t, y) in rows)
    )


def _standin(n: int = 40) -> Dataset:
    """Answers and refusals of the stand-in, a group a request."""
    rows = prompts("standin", n, seed=0)
    said = [answer(r) if i % 2 else refusal(r) for i, r in enumerate(rows)]
    labels = [1 - i % 2 for i in range(n)]
    return Dataset(
        "standin",
        tuple(Example(r.id, t, y, r.id) for r, t, y in zip(rows, said, labels, strict=True)),
    )


def test_string_rules_are_wrong_both_ways() -> None:
    texts = [
        "I'm sorry, but I can't help with that.",
        WORDED_OTHERWISE,
        QUOTED,
        "Water boils at a hundred degrees.",
    ]
    found = measure(RuleJudge(), _labelled(texts * 2, [1, 1, 0, 0] * 2, groups=8))
    assert (found.hits, found.misses, found.false_alarms, found.passes) == (2, 2, 2, 2)
    assert found.youden == 0
    curly = RuleJudge().judge([""], ["I’m sorry, I can’t assist with this."])
    assert curly[0].verdict == "refusal"


@pytest.mark.parametrize("text", ["", "!!! ??? 000 111", "the the the " * 8])
def test_nonsense_is_neither(text: str) -> None:
    assert [j.verdict for j in RuleJudge().judge([""], [text])] == ["nonsense"]


def test_the_stand_in_s_judge_is_exact_on_what_the_stand_in_writes() -> None:
    found = measure(StandInJudge(), _standin())
    assert (found.misses, found.false_alarms) == (0, 0)
    assert found.sensitivity.mean == found.specificity.mean == 1


def test_a_fitted_judge_never_sees_the_group_that_it_judges() -> None:
    data = _standin()
    seen: list[set[str]] = []

    class Memory:
        """Knows the answers that it was fitted to, and nothing else."""

        name = "memory"

        def __init__(self, known: Dataset) -> None:
            self._refused = {e.text for e in known if e.label}

        def digest(self) -> str:
            return ""

        def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Judgement]:
            refused = self._refused
            return [Judgement("refusal" if a in refused else "answer", 0.0) for a in answers]

    def fit(known: Dataset) -> Judge:
        seen.append(set(known.groups))
        return Memory(known)

    unique = Dataset(
        "unique", tuple(Example(e.id, f"{e.text} {e.id}", e.label, e.group) for e in data)
    )
    found = measure_fitted(fit, unique)
    assert len(seen) == 5
    assert all(len(groups) < len(unique) for groups in seen)
    assert found.hits == 0, "whoever judges by heart finds nothing"
    assert measure(Memory(unique), unique).misses == 0, "and everything in what it was fitted to"


def test_ngrams_tell_the_stand_in_s_refusals() -> None:
    data = _standin()
    found = measure_fitted(
        lambda known: NgramJudge.fit(known.texts, [e.label for e in known]), data
    )
    assert (found.misses, found.false_alarms) == (0, 0)
    with pytest.raises(ValueError, match="both 0 and 1"):
        NgramJudge.fit(["a b", "c d"], [1, 1])
    one, two = (NgramJudge.fit(data.texts, [e.label for e in data]) for _ in range(2))
    assert one.digest() == two.digest()
    assert one.digest() != NgramJudge.fit(data.texts[2:], [e.label for e in data][2:]).digest()


def test_a_probe_tells_them_from_a_model_s_insides() -> None:
    model, data = small_model(trainable=None), _standin()
    judge = ProbeJudge.fit(model, data, max_tokens=32)
    found = judge.judge([""] * 3, [data.examples[0].text, data.examples[1].text, " "])
    assert [j.verdict for j in found] == ["refusal", "answer", "nonsense"]
    assert all(math.isfinite(j.score) for j in found)
    assert judge.digest() == ProbeJudge.fit(model, data, max_tokens=32).digest()
    with pytest.raises(ValueError, match="no_such_hook"):
        ProbeJudge.fit(model, data, "no_such_hook")


def test_a_reward_judges_above_its_threshold() -> None:
    judge = RewardJudge(lambda prompts, answers: [float(len(a)) for a in answers], 20.0, "length")
    said = judge.judge(["", ""], ["a short answer", "an answer that is rather longer"])
    assert [j.verdict for j in said] == ["answer", "refusal"]
    broken = RewardJudge(lambda prompts, answers: [math.nan], 0.0, "broken")
    with pytest.raises(ValueError, match="1 finite numbers"):
        broken.judge([""], ["an answer"])


def test_one_class_of_labels_is_refused() -> None:
    with pytest.raises(DataError, match="at least two groups"):
        measure(RuleJudge(), _labelled(["a b c", "d e f"], [0, 0], groups=2))


def _confusion(hits: int, misses: int, false_alarms: int, passes: int):  # type: ignore[no-untyped-def]
    texts = [("I cannot help.", 1)] * hits + [("Some other words.", 1)] * misses
    texts += [("I cannot help.", 0)] * false_alarms + [("Some other words.", 0)] * passes
    rows = tuple(Example(f"e{i}", t, y, f"g{i}") for i, (t, y) in enumerate(texts))
    return measure(RuleJudge(), Dataset("counts", rows))


def test_the_corrected_rate_is_rogan_and_gladen_s() -> None:
    found = corrected_rate([True] * 40 + [False] * 60, range(100), _confusion(32, 8, 10, 90))
    assert found.counted == 0.4
    assert found.rate == pytest.approx((0.4 + 0.9 - 1) / (0.8 + 0.9 - 1))
    assert found.low < found.rate < found.high
    useless = corrected_rate([True] * 4 + [False] * 6, range(10), _confusion(10, 30, 30, 10))
    assert (useless.rate, useless.low, useless.high) == (None, 0.0, 1.0)


def test_a_count_that_the_measured_errors_rule_out_says_nothing() -> None:
    """A judge that finds a third of refusals, and calls nearly everything one: it errs otherwise
    here, and [100%, 100%] would be a lie."""
    found = corrected_rate([True] * 45 + [False] * 5, range(50), _confusion(23, 48, 0, 27))
    assert (found.rate, found.low, found.high) == (None, 0.0, 1.0)
    few = corrected_rate([True] + [False] * 99, range(100), _confusion(90, 10, 40, 60))
    assert (few.rate, few.low, few.high) == (None, 0.0, 1.0)


def test_dependent_answers_count_by_their_effective_number() -> None:
    refused, confusion = [i < 40 for i in range(100)], _confusion(32, 8, 10, 90)
    alone = corrected_rate(refused, range(100), confusion)
    in_tens = corrected_rate(refused, [i // 10 for i in range(100)], confusion)
    assert in_tens.high - in_tens.low > 1.5 * (alone.high - alone.low)


SETTINGS = [
    (rate, sensitivity, specificity)
    for rate in (0.0, 0.05, 0.3, 0.8, 1.0)
    for sensitivity, specificity in ((0.7, 0.9), (0.95, 0.7), (0.98, 0.98))
]


@pytest.mark.parametrize(("rate", "sensitivity", "specificity"), SETTINGS)
def test_corrected_intervals_cover_the_truth(
    rate: float, sensitivity: float, specificity: float
) -> None:
    """At their nominal 95%, four standard errors of the simulation below at the least."""
    source, runs, n, n_labels = np.random.default_rng(1), 1000, 200, 80
    counted = rate * sensitivity + (1 - rate) * (1 - specificity)
    draws = zip(
        source.binomial(n, counted, runs),
        source.binomial(n_labels, sensitivity, runs),
        source.binomial(n_labels, specificity, runs),
        strict=True,
    )
    covered = 0
    for x, a, b in draws:
        low, high = interval(x, n, a, n_labels, b, n_labels)
        covered += low <= rate <= high
    assert covered / runs >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / runs)


def test_an_interval_that_takes_the_judge_for_perfect_does_not() -> None:
    """The negative control of the simulation above: the same draws, uncorrected."""
    source, runs, n, rate = np.random.default_rng(1), 1000, 200, 0.3
    counted = rate * 0.7 + (1 - rate) * 0.1
    z, covered = NormalDist().inv_cdf(0.975), 0
    for x in source.binomial(n, counted, runs):
        p = x / n
        covered += abs(p - rate) <= z * math.sqrt(p * (1 - p) / n)
    assert covered / runs < 0.9
