"""Levels of safety on the same prompts: what each refuses, what it costs, what was shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bitlens.alignment import levels
from bitlens.alignment.red_team import ModelRespondent, standin_prompts
from bitlens.alignment.red_team.prompts import KINDS
from bitlens.alignment.safety_levels import (
    FilteredModel,
    RememberedModel,
    ngram_filter,
    probe_filter,
    probe_monitor,
    standin_exchanges,
    unpaired_detectable,
)
from bitlens.alignment.safety_levels.abilities import calibration, tasks, yes_or_no
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from support.respondents import HELP, REFUSAL, Says, always
from support.training_models import small_checkpoint


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return load(small_checkpoint())


def _names(prompt: str) -> str:
    return REFUSAL if "velmorin" in prompt else HELP


def test_levels_stand_side_by_side_on_the_same_prompts(tmp_path: Path) -> None:
    found = {"none": always(HELP), "all": always(REFUSAL), "names": Says("names", _names)}
    report = levels(found, n=20, n_tasks=4, output=tmp_path)
    lines = {(line["level"], line["kind"], line["template"]): line for line in report.table()}
    assert lines["none", "harmful", "plain"]["refusal"] == 0
    assert lines["all", "benign", "plain"]["refusal"] == 1
    assert lines["names", "benign", "plain"]["refusal"] == 0
    assert 0 < lines["names", "near_miss", "plain"]["refusal"] < 1
    assert lines["all", "harmful", "plain"]["low"] > 0.8
    assert {"refusal", "answer", "nonsense", "low", "high", "ttft_ms"} <= set(report.table()[0])
    shown = {(c.level, c.task): c.shown for c in report.comparisons}
    assert shown["all", "refusal, benign, plain"] == "more"
    assert shown["names", "refusal, benign, plain"] == "not shown"
    assert shown["names", "refusal, harmful, in templates"] == "more"
    asked = found["none"].n_asked
    levels(found, n=20, n_tasks=4, output=tmp_path)
    assert found["none"].n_asked - asked == 12, "attacks are read from the folder"


def test_a_difference_that_the_run_could_not_see_is_not_shown() -> None:
    """One benign prompt in twenty refused: no test of twenty shows it, and the report says what
    it would have shown."""
    rows = standin_prompts(20, seed=0).of("benign")
    once = Says("once", lambda p: REFUSAL if p == rows[3].text else HELP)
    report = levels({"none": always(HELP), "once": once}, n=20, n_tasks=4, templates=[])
    (found,) = [c for c in report.comparisons if c.task == "refusal, benign, plain"]
    assert found.difference == 0.05
    assert found.shown == "not shown"
    assert found.detectable > found.difference


def test_the_power_is_stated() -> None:
    assert unpaired_detectable(200) == pytest.approx(0.14, abs=0.003)
    assert unpaired_detectable(50) > 0.25
    with pytest.raises(ValueError, match="at least two"):
        levels({"none": always(HELP)}, n=4)


def _flagged(level: FilteredModel, texts: list[str]) -> list[bool]:
    said = level.answers(texts, max_new_tokens=4, seed=0, temperature=0.0)
    return [answer.text.startswith("I cannot help") for answer in said]


def test_filters_are_fitted_to_training_wordings_alone(model: HookedTransformer) -> None:
    inner, training = RememberedModel(ModelRespondent(model, "none")), standin_exchanges(40, seed=0)
    assert sum(e.label for e in training) == 40
    held_out = {p.text for p in standin_prompts(1000, seed=0)}
    assert not any(text in example.text for example in training for text in held_out)
    level, prompts = ngram_filter(inner, training), standin_prompts(30, seed=1)
    shares = {}
    for kind in KINDS:
        flagged = _flagged(level, [p.text for p in prompts.of(kind)])
        shares[kind] = sum(flagged) / len(flagged)
    assert shares["harmful"] > shares["benign"] + 0.3
    assert level.digest() == ngram_filter(inner, training).digest()
    other = probe_filter(inner, standin_exchanges(5, seed=0), max_tokens=32)
    assert other.digest() != level.digest()
    assert len(_flagged(other, [p.text for p in prompts][:6])) == 6


def test_a_filter_holds_everything_until_the_end(model: HookedTransformer) -> None:
    inner = ModelRespondent(model, "none")
    plain = inner.timed("What is 1 + 1?", max_new_tokens=8)
    never = FilteredModel(inner, "never", lambda texts: [0.0 for _ in texts], 1.0, "")
    held = never.timed("What is 1 + 1?", max_new_tokens=8)
    assert plain.token_ms is not None
    assert plain.token_ms > 0
    assert held.token_ms == 0
    assert held.text == plain.text
    always_on = FilteredModel(inner, "always", lambda texts: [2.0 for _ in texts], 1.0, "")
    assert always_on.timed("x", max_new_tokens=2).text != inner.timed("x", max_new_tokens=2).text


def test_a_monitor_ends_answers(model: HookedTransformer) -> None:
    inner = ModelRespondent(model, "none")
    level = probe_monitor(inner, standin_exchanges(6, seed=0, model=model), max_tokens=48)
    options: dict[str, Any] = {"max_new_tokens": 4, "seed": 0, "temperature": 0.0}
    prompts = [p.text for p in standin_prompts(6, seed=1)]
    free = level.answers(prompts, **options)
    level._monitor.threshold = -1e9
    stopped = level.answers(prompts, **options)
    assert all(answer.text.startswith("I cannot help") for answer in stopped)
    level._monitor.threshold = 1e9
    assert [a.text for a in level.answers(prompts, **options)] == [
        a.text for a in inner.answers(prompts, **options)
    ]
    assert len(free) == len(prompts)


def test_a_remembered_model_writes_each_answer_once(model: HookedTransformer) -> None:
    calls: list[int] = []

    class Counts(RememberedModel):
        def generate(self, prompts: Any, **settings: Any) -> Any:
            calls.append(len(prompts))
            return super().generate(prompts, **settings)

    kept = Counts(ModelRespondent(model, "none"))
    options: dict[str, Any] = {"max_new_tokens": 3, "seed": 0, "temperature": 1.0}
    first = kept.answers(["a", "b", "a"], **options)
    again = kept.answers(["b", "c"], **options)
    assert calls == [2, 1]
    assert first[1] == again[0]
    assert first[0] == first[2]
    plain = ModelRespondent(model, "none").answers(["c"], **options)
    assert plain[0].text == again[1].text


def test_abilities_are_judged_exactly(model: HookedTransformer) -> None:
    found = {task.kind: task for task in tasks(2, seed=0)}
    total = found["sum"].right
    assert found["sum"].is_right(f"The sum is {total}.")
    assert not found["sum"].is_right("It is 99.")
    word = found["instruction"].right
    assert found["instruction"].is_right(f" {word}.\n")
    assert not found["instruction"].is_right(f"{word} {word}")
    assert found["fact"].is_right(f"{found['fact'].right.title()}, it is.")
    assert tasks(3, seed=1) == tasks(3, seed=1)
    chances, masses = yes_or_no(model, ["Is it so?", "Is it not?"])
    assert all(0 <= p <= 1 for p in chances + masses)


def test_calibration_is_that_of_the_probabilities() -> None:
    sure = calibration([1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.1, 0.9], [True, False, True, False])
    assert (sure["ece"], sure["brier"], sure["abstained"]) == (0, 0, 0.25)
    wrong = calibration([1.0, 0.0], [1.0, 1.0], [False, True])
    assert (wrong["ece"], wrong["brier"]) == (1, 1)
