"""Budgets are kept to the token; a sample does not depend on who is thinking beside it."""

from __future__ import annotations

import json
from pathlib import Path

import bitlens
import pytest
from bitlens.model.serving import Engine, Request
from bitlens.model.thinking import (
    Problem,
    ThinkingLayout,
    mean_logprob,
    measure,
    think,
)
from bitlens.model.transformer import HookedTransformer
from support.speaking_llama import write_speaking_llama

LAYOUT = ThinkingLayout(start="<", end=">", wait="Wait", answer_prefix="=")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    return bitlens.load(write_speaking_llama(tmp_path_factory.mktemp("speaking")))


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("budget", [(0, 0), (0, 5), (7, 7), (3, 20), (20, 20)])
def test_budgets_are_kept_to_the_token(
    model: HookedTransformer, budget: tuple[int, int], temperature: float
) -> None:
    least, most = budget
    found = think(
        model, "abc", min_thinking=least, max_thinking=most, n=6, temperature=temperature,
        max_new_tokens=5, layout=LAYOUT, seed=4,
    )  # fmt: skip
    assert all(least <= n <= most for n in found.n_thinking)
    assert all(
        n == most for n, forced in zip(found.n_thinking, found.forced, strict=True) if forced
    )
    assert all(">" not in thinking for thinking in found.thinking)
    for thought, forced in zip(found.samples, found.forced, strict=True):
        assert thought.text.startswith("=") or not forced
        assert len(thought.logprobs) == len(thought.answer_ids) <= 5


def test_an_early_end_is_taken_back(model: HookedTransformer) -> None:
    """Noise so hot that ends come early: with a least budget they become waits."""
    options = {"max_thinking": 40, "n": 12, "temperature": 50.0, "seed": 1}
    options |= {"layout": LAYOUT, "max_new_tokens": 8}
    free = think(model, "abc", **options)  # type: ignore[arg-type]
    assert min(free.n_thinking) < 30
    held = think(model, "abc", min_thinking=30, **options)  # type: ignore[arg-type]
    assert sum(held.waits) > 0
    for i, (thinking, waits) in enumerate(zip(held.thinking, held.waits, strict=True)):
        early = free.samples[i].thinking_ids
        assert held.samples[i].thinking_ids[: len(early)] == early
        assert (waits > 0) == (free.n_thinking[i] < 30)
        if waits and free.n_thinking[i] <= 36:
            assert "Wait" in thinking


def test_neither_number_nor_company_moves_a_token(model: HookedTransformer) -> None:
    options = {"max_thinking": 12, "temperature": 1.0, "max_new_tokens": 6, "layout": LAYOUT}
    alone = think(model, "hello", n=1, seed=9, **options)  # type: ignore[arg-type]
    many = think(model, "hello", n=5, seed=9, **options)  # type: ignore[arg-type]
    with Engine(model) as engine:
        other = engine.submit(Request("others", max_new_tokens=30, temperature=1.0, seed=2))
        among = think(model, "hello", n=5, seed=9, engine=engine, **options)  # type: ignore[arg-type]
        other.result()
    assert among.samples == many.samples
    assert many.samples[:1] == alone.samples
    assert len({tuple(thought.thinking_ids) for thought in many.samples}) > 1
    again = think(model, "hello", n=5, seed=10, **options)  # type: ignore[arg-type]
    assert again.samples != many.samples


def test_thinking_is_one_stream_with_the_text_of_generate(model: HookedTransformer) -> None:
    """Until the budget ends, a sample is what `generate` writes with its seed."""
    found = think(model, "hello", max_thinking=15, temperature=1.0, seed=3, layout=LAYOUT)
    plain = model.generate("hello<", max_new_tokens=15, temperature=1.0, seed=3)
    n = found.n_thinking[0]
    assert n > 0
    assert plain.tokens[0, 6 : 6 + n].tolist() == found.samples[0].thinking_ids


def test_scores_and_readers(model: HookedTransformer) -> None:
    found = think(
        model, "x", n=3, temperature=1.0, max_thinking=4, layout=LAYOUT, max_new_tokens=4,
        scorer=mean_logprob(min), read=lambda text: text[:1] or None,
    )  # fmt: skip
    assert found.scores == [min(thought.logprobs) for thought in found.samples]
    assert found.answer == [text[:1] or None for text in found.text]


def test_a_prompt_that_opens_the_thinking_is_not_opened_again(model: HookedTransformer) -> None:
    options = {"max_thinking": 5, "seed": 1, "temperature": 1.0, "layout": LAYOUT}
    assert (
        think(model, "abc<", **options).samples == think(model, "abc", **options).samples  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"min_thinking": 9, "max_thinking": 3}, "min_thinking = 9"),
        ({"n": 0}, "n = 0"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0"),
        ({"max_thinking": 90}, "the context has 96"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_budgets_are_refused(model: HookedTransformer, bad: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        think(model, "abc", **({"max_thinking": 4, "layout": LAYOUT} | bad))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty text"):
        ThinkingLayout(end="")
    with pytest.raises(ValueError, match="expected one"):
        think(model, ["a", "b"])


def test_a_curve_over_budgets(model: HookedTransformer, tmp_path: Path) -> None:
    problems = [Problem(text, truth) for text, truth in (("a", "q"), ("b", "z"), ("c", "w"))]
    curve = measure(
        model, problems, [(0, 0), (4, 4)], n=4, layout=LAYOUT, max_new_tokens=2,
        scorer=mean_logprob(), read=lambda text: text[1:2] or None,
    )  # fmt: skip
    assert [point.thinking for point in curve.points] == [0, 4]
    assert len(curve.rows) == 2 * 3 * 4
    for point in curve.points:
        assert point.single.mean <= point.passed.mean
        assert point.chosen is not None
        json.dumps(point.as_dict())
    with pytest.raises(ValueError, match="no truth"):
        measure(model, [Problem("a", ""), Problem("b", "x")], [(0, 1)])
    with pytest.raises(ValueError, match="1 problems"):
        measure(model, problems[:1], [(0, 1)])
