"""Many shots: the same answers as without a cache, and success over their number."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from bitlens.alignment.red_team import Judgement, RuleJudge, many_shot
from bitlens.alignment.standin import answer, prompts
from bitlens.model.load import load
from bitlens.model.serving import Engine
from support.random_models import byte_tokenizer, random_model
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
