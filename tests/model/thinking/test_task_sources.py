"""Generated problems: their truths pass their verifiers, and what is nearly right does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import bitlens
import pytest
from bitlens.model.text.tokenizer import Tokenizer
from bitlens.model.thinking import (
    Problem,
    ThinkingLayout,
    formats,
    gym_problems,
    measure,
    needles,
    problems_named,
)
from bitlens.model.transformer import HookedTransformer
from support.speaking_llama import write_speaking_llama

HAS_GYM = importlib.util.find_spec("reasoning_gym") is not None
needs_gym = pytest.mark.skipif(not HAS_GYM, reason="extra tasks is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    return bitlens.load(write_speaking_llama(tmp_path_factory.mktemp("speaking")))


@pytest.fixture(scope="module")
def tokenizer(model: HookedTransformer) -> Tokenizer:
    assert model.tokenizer is not None
    return model.tokenizer


def test_needles_stand_where_they_should(tokenizer: Tokenizer) -> None:
    lengths, depths = (300, 600), (0, 50, 100)
    problems = needles(tokenizer, 12, lengths=lengths, depths=depths, chat=False)
    for i, problem in enumerate(problems):
        length, depth = [(a, b) for a in lengths for b in depths][i % 6]
        assert problem.task == f"needle, {length} tokens, depth {depth}%"
        text = str(problem.prompt)
        n = len(tokenizer.encode(text))
        assert length - 60 < n <= length
        assert text.count(problem.truth) == 1
        story, _, _ = text.partition("\nWhat is")
        before, _, after = story.partition("The secret number")
        share = len(before) / (len(before) + len(after))
        assert share == pytest.approx(depth / 100, abs=0.2)
        assert problem.is_right(problem.truth)
        assert not problem.is_right(str(int(problem.truth) + 1))
    assert needles(tokenizer, 3, seed=1) == needles(tokenizer, 3, seed=1)
    assert needles(tokenizer, 3, seed=1) != needles(tokenizer, 3, seed=2)


def test_needles_bad_input(tokenizer: Tokenizer) -> None:
    for bad in ({"lengths": ()}, {"depths": (120,)}):
        with pytest.raises(ValueError, match="expected some"):
            needles(tokenizer, 1, **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the fact and its question"):
        needles(tokenizer, 1, lengths=(8,))
    with pytest.raises(ValueError, match="needles:256"):
        problems_named("needles:many", 2, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="tokenizer"):
        problems_named("needles", 2)


def test_formats_are_judged_by_their_form() -> None:
    for problem in formats(20, seed=3):
        assert problem.is_right(problem.truth)
        assert problem.is_right(f"\n {problem.truth} ")
        assert not problem.is_right(None)
        assert not problem.is_right(f"Here it is: {problem.truth}")
        assert not problem.is_right(problem.truth.replace("e", "E", 1).replace("E", "e", 2) + "!")
    (as_list,) = formats(1)
    words = json.loads(as_list.truth)
    assert as_list.is_right(json.dumps(words, indent=2))
    assert not as_list.is_right(json.dumps(words[::-1]))
    assert not as_list.is_right(json.dumps({"words": words}))


def test_a_verifier_judges_votes_and_rows(model: HookedTransformer) -> None:
    """With a verifier that takes every answer, all that was read is right; with none, nothing."""
    layout = ThinkingLayout("<", ">")
    for verdict in (True, False):
        problems = [
            Problem(text, "", task="any", verify=lambda answer, verdict=verdict: verdict)
            for text in ("a", "b", "c")
        ]
        curve = measure(model, problems, [(0, 0)], n=3, layout=layout, read=lambda text: text + ".",
                        max_new_tokens=2)  # fmt: skip
        point = curve.points[0]
        assert point.single.mean == point.passed.mean == float(verdict)
        assert point.majority.mean == pytest.approx(float(verdict))
        assert {row["score"] for row in curve.rows} == {verdict}
        assert {row["task"] for row in curve.rows} == {"any, thinking 0 to 0"}


def test_names(tmp_path: Path) -> None:
    assert problems_named("formats", 3)[0][1].task == "format, upper case"
    assert problems_named("sums", 3, chat=True)[0][0].prompt[0]["role"] == "user"  # type: ignore[index]
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}\n' * 3)
    assert len(problems_named(str(path), 2)[0]) == 2
    with pytest.raises(ValueError, match=r"gym:NAME"):
        problems_named("sum", 2)


@pytest.mark.skipif(HAS_GYM, reason="extra tasks is installed")
def test_without_the_extra_it_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"pip install 'bitlens\[tasks\]'"):
        gym_problems("chain_sum", 2)


@needs_gym
def test_reasoning_gym() -> None:
    problems = gym_problems("chain_sum", 5, seed=2)
    assert problems[0].task == "gym:chain_sum"
    for problem in problems:
        assert problem.is_right(problem.truth)
        assert problem.is_right(f"+{problem.truth}.0") or problem.truth.startswith("-")
        assert not problem.is_right(str(int(problem.truth) + 1))
    assert [p.prompt for p in gym_problems("chain_sum", 5, seed=2)] == [p.prompt for p in problems]
    with pytest.raises(ValueError, match="did you mean 'chain_sum'"):
        gym_problems("chain_sun", 2)
    with pytest.raises(ValueError, match="gives no problems by itself"):
        gym_problems("composite", 2)


@needs_gym
@pytest.mark.nightly
def test_every_generator_accepts_its_own_answer() -> None:
    """Those that give an answer: over a hundred, of which none may refuse its own."""
    import reasoning_gym

    refused, judged = [], 0
    for name in sorted(reasoning_gym.factory.DATASETS):
        if name == "composite":
            continue
        for problem in gym_problems(name, 2, seed=1):
            if problem.truth:
                judged += 1
                if not problem.is_right(problem.truth):
                    refused.append(name)
    assert judged > 180
    assert not refused


@needs_gym
def test_a_generator_without_a_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    import reasoning_gym

    entries = [{"question": "?", "answer": "!"}] * 2
    monkeypatch.setattr(reasoning_gym, "create_dataset", lambda name, **options: entries)
    with pytest.raises(ValueError, match="no verifier"):
        gym_problems("chain_sum", 2)
