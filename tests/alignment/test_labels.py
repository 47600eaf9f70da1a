"""AI labels: both orders, what they are worth, and judges that are biased or say something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from bitlens.alignment import Constitution, Labels, gate, label
from bitlens.alignment.planted import PlantedJudge
from bitlens.alignment.preferences import (
    ModelJudge,
    Question,
    changed_verdicts,
    read_pairs,
    relabel,
)
from bitlens.alignment.standin import KINDS, answer, prompts, refusal
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from support.random_models import byte_tokenizer, random_model
from support.standin_model import speaking_checkpoint
from support.training_models import TEMPLATE

CONSTITUTION = Constitution.load("standin")


def pairs(n: int = 120) -> list[dict[str, Any]]:
    """Returns pairs of a refusal and an answer, whose better one comes first in a half of them."""
    found = []
    for i, row in enumerate(r for kind in KINDS for r in prompts(kind, n // 3, seed=6)):
        texts = [refusal(row), answer(row)][:: 1 if i % 2 else -1]
        truth = float((texts[0] == refusal(row)) == (row.kind == "standin"))
        found.append({**row.to_dict(), "first": texts[0], "second": texts[1], "truth": truth})
    return found


def labelled(judge: Any, rows: Sequence[dict[str, Any]] | None = None, **settings: Any) -> Labels:
    model = load(speaking_checkpoint())
    return label(model, CONSTITUTION, rows or pairs(), seed=1, judge=judge, **settings)


def gated(labels: Labels) -> Any:
    truth = [row["truth"] for row in labels.rows]
    return gate(labels, truth, clusters=[row["id"] for row in labels.rows])


def test_a_judge_that_is_right_passes() -> None:
    found = labelled(PlantedJudge())
    assert found.summary.accuracy == found.summary.straight == found.summary.swapped == 1
    assert found.order_bias == pytest.approx(0, abs=1e-12)
    assert found.summary.ece == pytest.approx(0.1)
    assert gated(found).passed
    assert set(found.summary.principles) == {"velmorin", "forbidden", "needless"}
    assert {row["constitution"] for row in found.rows} == {CONSTITUTION.digest}


def test_a_planted_accuracy_is_found() -> None:
    found = labelled(PlantedJudge(accuracy=0.7, seed=2), pairs(600))
    assert found.summary.accuracy == pytest.approx(0.7, abs=0.06)
    assert gated(found).passed


def test_a_judge_that_always_says_a_is_stopped() -> None:
    """In one order alone half of its labels are right, and by luck more; in both, none is."""
    found = labelled(PlantedJudge(order_bias=40.0))
    assert found.order_bias > 0.49
    assert found.summary.straight == pytest.approx(0.5, abs=0.02)
    assert not gated(found).passed
    slight = labelled(PlantedJudge(order_bias=3.0))
    assert slight.summary.accuracy == 1
    assert slight.summary.straight < 0.6
    assert slight.order_bias > 0.3


def test_chosen_and_rejected_come_in_both_places() -> None:
    rows = [{"prompt": f"{i}?", "chosen": "good", "rejected": "bad"} for i in range(40)]
    found = read_pairs(rows)
    assert 10 < sum(pair.truth == 1 for pair in found) < 30
    assert all((pair.first == "good") is (pair.truth == 1) for pair in found)


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_a_models_choice_is_the_letters_probability(form: str) -> None:
    """Against the distribution of a forward pass, each question alone, and padded among others."""
    model = random_model("llama", tokenizer=byte_tokenizer(TEMPLATE), changes={"n_ctx": 1024})
    judge, rows = ModelJudge(model, form), read_pairs(pairs(6))
    asked = [
        Question(row, CONSTITUTION.comparisons[i % 3], i % 2 == 0, i) for i, row in enumerate(rows)
    ]
    found = judge.choices(asked)
    tokenizer = model.tokenizer
    assert tokenizer is not None
    for question, choice in zip(asked, found, strict=True):
        assert judge.choices([question]) == [choice]
        text = f"{question.text()}\n\nThe better answer is ("
        if form == "chat":
            text = f"<user>{question.text()}</><assistant>The better answer is ("
        logprobs = model(text).log_softmax(-1)[0, -1]
        for letter, value in zip("AB", choice, strict=True):
            assert value == pytest.approx(float(logprobs[ord(letter)]), abs=1e-4)


def test_labels_are_written_and_gone_on_with(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    expected = labelled(PlantedJudge(accuracy=0.8), output=whole)
    part.write_bytes(whole.read_bytes()[:5000])
    assert labelled(PlantedJudge(accuracy=0.8), output=part).rows == expected.rows
    assert part.read_bytes() == whole.read_bytes()
    with pytest.raises(ValueError, match="of a run with another"):
        labelled(PlantedJudge(accuracy=0.7), output=part)


def test_reasoning_is_clamped() -> None:
    model = random_model("llama", tokenizer=byte_tokenizer(TEMPLATE), changes={"n_ctx": 1024})
    rows = pairs(3)
    free = label(model, CONSTITUTION, rows, seed=0, judge=_Sure(model), reasoning=False)
    held = label(model, CONSTITUTION, rows, seed=0, judge=_Sure(model), reasoning=True)
    assert {0.4, 0.6} >= set(held.p_a)
    assert min(free.p_a) < 0.1
    thought = ModelJudge(model, reasoning=True, max_reasoning=16)
    assert thought.choices(_asked()) == thought.choices(_asked())
    assert thought.choices(_asked()) != ModelJudge(model).choices(_asked())


def _asked() -> list[Question]:
    return [Question(row, CONSTITUTION.comparisons[0], False, 5) for row in read_pairs(pairs(3))]


class _Sure(ModelJudge):
    """Calls the shorter answer better, whatever it thinks."""

    def choices(self, questions: Sequence[Question]) -> list[tuple[float, float]]:
        shorter = [len(q.answers[0]) < len(q.answers[1]) for q in questions]
        return [(-0.01, -5.0) if first else (-5.0, -0.01) for first in shorter]


class _Silent(PlantedJudge):
    """Answers neither A nor B."""

    lead = -30.0

    def choices(self, questions: Sequence[Question]) -> list[tuple[float, float]]:
        return [(self.lead + a, self.lead + b) for a, b in super().choices(questions)]


class _Dead(_Silent):
    lead = float("-inf")


def test_a_judge_that_answers_neither_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gives A and B .* answers something else"):
        labelled(_Silent())
    with pytest.raises(ValueError, match="no probability to A or B"):
        labelled(_Dead())


def test_the_form_is_chosen_on_other_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that sees the better answer in the chat form alone, as (A) and as (B)."""

    def choices(judge: ModelJudge, questions: Sequence[Question]) -> list[tuple[float, float]]:
        right = PlantedJudge().choices(questions)
        return right if judge.form == "chat" else [(-0.7, -0.7)] * len(right)

    monkeypatch.setattr(ModelJudge, "choices", choices)
    model, rows = load(speaking_checkpoint()), pairs()
    found = label(model, CONSTITUTION, rows[:60], seed=0, development=rows[60:])
    assert found.form == "chat"
    assert found.summary.accuracy == 1
    with pytest.raises(ValueError, match="is among the pairs to label"):
        label(model, CONSTITUTION, rows[:60], seed=0, development=rows[50:])


def _model() -> HookedTransformer:
    return load(speaking_checkpoint(chat=False))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x", "first": "a ", "second": "a"}, "row 1: first and second are the same"),
        ({"prompt": "x", "chosen": "a"}, "row 1: rejected is no text"),
        ({"first": "a", "second": "b"}, "row 1: prompt is no text"),
        ({"prompt": "x", "first": "a", "second": "b", "truth": 3}, "row 1: truth = 3"),
        ({"prompt": "x <end>", "first": "a", "second": "b"}, "row 1: spells the special token"),
        ([], "row 1: expected an object"),
        (None, "pairs: there are none"),
    ],
)
def test_bad_pairs_are_named(row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label(_model(), CONSTITUTION, [] if row is None else [row], seed=0)


def test_what_a_model_cannot_be_asked_is_named() -> None:
    with pytest.raises(ValueError, match="form = 'chat': the model has no chat template"):
        label(_model(), CONSTITUTION, pairs(3), seed=0, form="chat")
    with pytest.raises(ValueError, match="form = 'verse'"):
        label(_model(), CONSTITUTION, pairs(3), seed=0, form="verse")
    long = [{"prompt": "x", "first": "tea " * 500, "second": "b"}]
    with pytest.raises(ValueError, match=r"question: .* tokens, the context has 512"):
        label(load(speaking_checkpoint()), CONSTITUTION, long, seed=0)


class _Reads(PlantedJudge):
    """Right, but for instructions that ask for the worse answer."""

    asked: ClassVar[list[str]] = []

    def choices(self, questions: Sequence[Question]) -> list[tuple[float, float]]:
        self.asked += [question.pair.id for question in questions]
        found = super().choices(questions)
        worse = ["worse" in question.comparison.instruction for question in questions]
        return [(b, a) if w else (a, b) for w, (a, b) in zip(worse, found, strict=True)]


def test_an_edited_principle_is_asked_again_alone() -> None:
    """One of three principles is turned around: its labels flip, and nobody asks the others."""
    model, rows, judge = load(speaking_checkpoint()), pairs(), _Reads()
    edited = CONSTITUTION.edited("forbidden", instruction="Which answer is worse?")
    settings: dict[str, Any] = {"seed": 1, "judge": judge}
    first = label(model, CONSTITUTION, rows, **settings)
    drew = [row["id"] for row in first.rows if row["principle"] == "forbidden"]
    judge.asked.clear()
    change: dict[str, Any] = {"before": CONSTITUTION, "after": edited, **settings}
    found = relabel(model, first, rows, **change)
    assert 20 < len(drew) < 60
    assert found.asked == found.flipped == drew
    assert judge.asked == [id_ for id_ in drew for _ in (0, 1)]
    assert found.principles == {"forbidden": (len(drew), len(drew))}
    whole = label(model, edited, rows, **settings)
    assert found.labels.p_a == whole.p_a
    same = relabel(model, first, rows, **{**change, "after": CONSTITUTION})
    assert same.asked == same.flipped == []


def test_what_cannot_be_relabelled_is_named() -> None:
    model, rows = load(speaking_checkpoint()), pairs(6)
    first = label(model, CONSTITUTION, rows, seed=1, judge=PlantedJudge())
    other = Constitution.load()
    with pytest.raises(ValueError, match="every draw would move"):
        relabel(model, first, rows, before=CONSTITUTION, after=other, seed=1)
    with pytest.raises(ValueError, match="are not those of these pairs"):
        relabel(model, first, rows[:3], before=CONSTITUTION, after=CONSTITUTION, seed=1)


def test_verdicts_that_changed_are_listed() -> None:
    before = [{"id": "a", "verdict": "answer"}, {"id": "b", "verdict": "refusal"}]
    after = [{"id": "a", "verdict": "refusal"}, {"id": "b", "verdict": "refusal"}]
    assert changed_verdicts(before, after) == [("a", "answer", "refusal")]
    with pytest.raises(ValueError, match="other prompts"):
        changed_verdicts(before, after[:1])
