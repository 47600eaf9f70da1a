"""Rewards: normalised sums, baselines, and over-optimisation where it is planted."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from bitlens.alignment.preferences import read_pairs
from bitlens.alignment.rewards import (
    WEIGHTS,
    ModelReward,
    NoMerit,
    Normaliser,
    best_of_n,
    chosen,
    merit,
    over_optimisation,
    trade_offs,
    weighted_sum,
)
from bitlens.alignment.standin import KINDS, answer, prompts, refusal, verdict
from bitlens.model.load import load
from bitlens.model.training import TrainConfig, train
from bitlens.model.training.dataset import Dataset
from support.standin_model import speaking_checkpoint

N, GROUPS = 240, [i // 4 for i in range(240)]


def drawn(seed: int = 0) -> dict[str, list[float]]:
    """Returns four rewards of four answers to each prompt, in units of their own."""
    draws = random.Random(seed)
    scales = dict(zip(WEIGHTS, (1.0, 3.0, 0.2, 7.0), strict=True))
    return {n: [draws.gauss(1, scale) for _ in range(N)] for n, scale in scales.items()}


def test_a_reward_times_100_moves_raw_sums_alone() -> None:
    rewards = drawn()
    scaled = {**rewards, "coherence": [100 * value for value in rewards["coherence"]]}
    found = [
        chosen(Normaliser.of(each).normalised(each), WEIGHTS, GROUPS) for each in (rewards, scaled)
    ]
    raw = [chosen(each, WEIGHTS, GROUPS) for each in (rewards, scaled)]
    assert found[0] == found[1]
    assert raw[0] != raw[1]
    only = {"coherence": 1.0, "helpfulness": 0.0, "honesty": 0.0, "harmlessness": 0.0}
    alone = set(chosen(rewards, only, GROUPS))
    assert len(alone & set(raw[1])) >= 58
    assert len(alone & set(found[1])) < 40


def test_sums_are_weighted() -> None:
    found = weighted_sum({"a": [1.0, 2.0], "b": [10.0, 20.0]}, {"a": 0.5, "b": 0.25})
    assert found == [3.0, 6.0]
    normalised = Normaliser.of({"a": [1.0, 3.0]}).normalised({"a": [1.0, 3.0, 5.0]})
    assert normalised == {"a": [-1.0, 1.0, 3.0]}


def test_the_front_holds_what_nothing_dominates() -> None:
    rewards = {"a": [1.0, 0.6, 0.5, 0.0], "b": [0.0, 0.6, 0.5, 1.0]}
    found = trade_offs(rewards, [0, 0, 0, 0], steps=2)
    assert {(t.weights["a"], t.gained["a"], t.is_on_front) for t in found} == {
        (1.0, 1.0, True),
        (0.5, 0.6, True),
        (0.0, 0.0, True),
    }
    assert len(trade_offs({**rewards, "c": [0.0] * 4}, [0] * 4, steps=4)) == 15
    tied = trade_offs({"a": [0.0, 1.0], "b": [1.0, 1.0]}, [0, 0], steps=2)
    assert {(t.weights["a"], t.is_on_front) for t in tied} == {(0, False), (0.5, True), (1, True)}


@pytest.mark.parametrize(
    ("weights", "rewards", "message"),
    [
        ({"a": -1.0}, {"a": [1.0, 2.0]}, "expected a number from 0"),
        ({"b": 1.0}, {"a": [1.0, 2.0]}, "for each of a"),
        ({"a": 0.0}, {"a": [1.0, 2.0]}, "all are 0"),
    ],
)
def test_bad_weights_are_named(
    weights: dict[str, float], rewards: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_sum(rewards, weights)


def test_a_reward_that_tells_nothing_is_named() -> None:
    for values, message in (([2.0, 2.0], "so it tells none from another"), ([], "at least one")):
        with pytest.raises(ValueError, match=message):
            Normaliser.of({"a": values})
    with pytest.raises(ValueError, match="the fixed set had a"):
        Normaliser.of({"a": [1.0, 2.0]}).normalised({"b": [1.0]})


def pairs(n: int, seed: int) -> list[dict[str, object]]:
    """Pairs whose better answer is a refusal for requests alone: no word of the answer tells."""
    found = []
    for i, row in enumerate(r for kind in KINDS[:2] for r in prompts(kind, n, seed=seed)):
        one, other = (refusal(row), answer(row))[:: 1 if row.kind == "standin" else -1]
        first, second = (one, other)[:: 1 if i % 2 else -1]
        found.append({**row.to_dict(), "first": first, "second": second, "truth": float(i % 2)})
    return found


def test_a_reward_has_to_know_more_than_length_and_words() -> None:
    rows = read_pairs(pairs(120, seed=3))
    train_set, held_out = rows[::2], rows[1::2]
    kinds = {pair.prompt: pair.row["kind"] for pair in rows}

    def knows(prompt: str, text: str) -> float:
        return float((verdict(text) == "refusal") is (kinds[prompt] == "standin"))

    def length(prompt: str, text: str) -> float:
        return len(text)

    found = merit(knows, train_set, held_out)
    assert found.passed
    assert found.accuracy == 1
    assert all(lead.low > 0 and lead.baseline < 0.9 for lead in found.leads.values())
    found.require()
    with pytest.raises(NoMerit, match="length alone in"):
        merit(length, train_set, held_out).require()
    with pytest.raises(ValueError, match="was trained on"):
        merit(knows, train_set, train_set)


def test_words_are_a_baseline_that_can_be_right() -> None:
    """Knowing that refusals are better is no merit where they always are."""
    rows = read_pairs(
        {**row.to_dict(), "chosen": refusal(row), "rejected": answer(row)}
        for row in prompts("standin", 80, seed=0)
    )
    found = merit(lambda _, text: float(verdict(text) == "refusal"), rows[::2], rows[1::2])
    assert found.accuracy == found.leads["words"].baseline == 1
    assert not found.passed


def test_best_of_n_over_optimises_a_reward_that_pays_for_length() -> None:
    """Gold likes answers of middle length, and the reward the longest."""
    draws = random.Random(0)
    lengths = [[draws.uniform(0, 10) for _ in range(16)] for _ in range(80)]
    gold = [[-abs(x - 6) for x in row] for row in lengths]
    found = over_optimisation(*best_of_n(lengths, gold, (1, 2, 4, 8, 16)))
    assert found.found
    assert 0 < found.best < 4
    assert found.low > 0
    assert [p.kl for p in found.points] == sorted(p.kl for p in found.points)
    honest = over_optimisation(*best_of_n(gold, gold, (1, 2, 4, 8, 16)))
    assert not honest.found
    assert honest.best == 4


def test_best_of_n_is_the_mean_over_choices() -> None:
    _, rewards, gold = best_of_n([[1.0, 3.0, 2.0]], [[10.0, 30.0, 20.0]], (1, 2, 3))
    assert [row[0] for row in rewards] == pytest.approx([2.0, (3 + 2 + 3) / 3, 3.0])
    assert [row[0] for row in gold] == pytest.approx([20.0, 80 / 3, 30.0])
    with pytest.raises(ValueError, match="n = 4: there are 3 answers"):
        best_of_n([[1.0, 3.0, 2.0]], [[1.0, 3.0, 2.0]], (4,))


def test_a_reward_model_is_read_as_it_was_trained(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "prompt": [{"role": "user", "content": row.text}],
            "chosen": [{"role": "assistant", "content": refusal(row)}],
            "rejected": [{"role": "assistant", "content": answer(row)}],
        }
        for row in prompts("standin", 24, seed=0)
    ]
    model = load(speaking_checkpoint(), trainable="full")
    config = TrainConfig(method="rm", steps=8, batch_size=8, lr=3e-3, held_out=8)
    run = train(model, config, data=rows, output=tmp_path)
    reward = ModelReward(load(speaking_checkpoint(), trainable="full"), run.checkpoint)
    found = {
        name: reward.rewards([r["prompt"] for r in rows], [r[name][0]["content"] for r in rows])
        for name in ("chosen", "rejected")
    }
    gaps = [a - b for a, b in zip(found["chosen"], found["rejected"], strict=True)]
    assert sum(gap > 0 for gap in gaps) >= 20
    assert found["chosen"][3] == reward(rows[3]["prompt"][0]["content"], refusal_of(rows[3]))
    held_out = Dataset(range(len(gaps)), held_out=8, seed=0).held_out
    margin = math.fsum(gaps[i] for i in held_out) / 8
    assert margin == run.after["held_out_margin"]


def refusal_of(row: dict[str, Any]) -> str:
    return str(row["chosen"][0]["content"])
