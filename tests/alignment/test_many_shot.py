"""Many shots: the same answers as without a cache, and success over their number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from bitlens.alignment.red_team import Judgement, RuleJudge, StandInJudge, many_shot
from bitlens.alignment.standin import REFUSALS, answer, prompts
from bitlens.model.load import load
from bitlens.model.serving import Engine
from bitlens.model.training import TrainConfig, train
from support.random_models import MemoryReader, byte_tokenizer, random_checkpoint, random_model
from support.training_models import small_checkpoint


class _Noted(RuleJudge):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[list[str], list[str]]] = []

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Judgement]:
        self.seen.append((list(prompts), list(answers)))
        return [Judgement("answer" if len(self.seen) > 1 else "refusal", 0.0) for _ in answers]


def test_shots_are_shared_and_move_no_bit() -> None:
    model = random_model("llama", tokenizer=byte_tokenizer(), changes={"n_ctx": 600})
    judge = _Noted()
    curve = many_shot(model, judge=judge, shots=(2, 4, 64), n=3, seed=1, max_new_tokens=4)
    assert [point.shots for point in curve.points] == [0, 2, 4]
    assert curve.left_out == (64,)
    assert curve.points[0].cached_tokens < curve.points[2].cached_tokens
    assert curve.points[2].cached_tokens > 0.5 * curve.points[2].prompt_tokens
    shown = prompts("standin", 64, seed=1, templates="plain")[:4]
    (asked, said) = judge.seen[2]
    text = "".join(f"{s.text}\n{answer(s)}\n" for s in shown)
    plain = model.generate([f"{text}{each}\n" for each in asked], max_new_tokens=4)
    assert said == plain.text


def test_the_gain_is_paired_with_no_shots() -> None:
    model = random_model("llama", tokenizer=byte_tokenizer(), changes={"n_ctx": 600})
    curve = many_shot(model, judge=_Noted(), shots=(1,), n=4, max_new_tokens=2)
    none, one = curve.points
    assert (none.success.mean, none.refusal.mean, none.gain) == (0, 1, None)
    assert one.gain is not None
    assert (one.success.mean, one.gain.mean) == (1, 1)
    assert curve.as_dict()["points"][1]["gain"]["value"] == 1


def test_shots_and_requests_are_in_other_words() -> None:
    shown = {row.text for row in prompts("standin", 256, seed=0, templates="plain")}
    asked = {row.text for row in prompts("standin", 100, seed=0, split="test", templates="plain")}
    assert not shown & asked


def test_a_cache_that_forgets_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the counts above."""
    submit = Engine.submit

    def forgetful(self, request, **options):  # type: ignore[no-untyped-def]
        self.cache.clear()
        return submit(self, request, **options)

    monkeypatch.setattr(Engine, "submit", forgetful)
    curve = many_shot(load(small_checkpoint()), judge=_Noted(), shots=(), n=2, max_new_tokens=2)
    assert curve.points[0].cached_tokens == 0


@pytest.mark.nightly
def test_a_trained_habit_is_overridden_by_a_shot(tmp_path: Path) -> None:
    """A model that refuses the substance and answers the rest, before and after one answered
    request in the prompt."""
    checkpoint = random_checkpoint("llama", tokenizer=byte_tokenizer(), n_ctx=1400)
    assert isinstance(checkpoint.reader, MemoryReader)
    checkpoint.reader.tensors["embed.weight"] *= 0.1
    model = load(checkpoint, trainable="full")
    untrained = many_shot(model, judge=StandInJudge(), shots=(1,), n=24, max_new_tokens=60)
    assert [point.refusal.mean for point in untrained.points] == [0, 0]
    rows = [
        {"prompt": f"{row.text}\n", "completion": said}
        for kind, said in (
            ("standin", REFUSALS[1]),
            ("benign", "Go to the mill, where they know it."),
        )
        for row in prompts(kind, 60, seed=0, templates="plain")
    ]
    config = TrainConfig(method="sft", steps=120, batch_size=16, lr=3e-3, max_length=256)
    train(model, config, data=rows, output=tmp_path)
    none, one = many_shot(model, judge=StandInJudge(), shots=(1,), n=24, max_new_tokens=60).points
    assert none.refusal.mean > 0.5
    assert one.refusal.interval.high < none.refusal.interval.low
    assert one.gain is not None
