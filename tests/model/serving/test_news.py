"""Listeners hear once a pass: each time wakes a thread, while the engine's own wants to go on."""

from __future__ import annotations

import pytest
import torch
from bitlens.model.serving import Engine, Handle, Request
from bitlens.model.serving.news import News
from bitlens.model.transformer import HookedTransformer
from support.random_models import byte_tokenizer, random_model


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer())


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


def test_a_pass_with_all_its_news_is_told_once(model: HookedTransformer) -> None:
    """The last one brings a token, text that was held back and the end, of three samples."""
    heard: list[tuple[int, bool]] = []
    handles: list[Handle] = []

    def listen() -> None:
        heard.append((engine.stats().steps, handles[0].is_done))

    with Engine(model) as engine:
        asked = Request("abc", max_new_tokens=4, n=3, temperature=1.0, seed=0, stop="zzz")
        handles.append(engine.submit(asked, listener=listen))
        assert heard == []
        while engine.step():
            pass
    steps = [step for step, _ in heard]
    assert len(set(steps)) == len(steps) >= 4
    assert [done for _, done in heard] == [False] * (len(heard) - 1) + [True]


def test_what_no_pass_brings_is_told_at_once(model: HookedTransformer) -> None:
    heard: list[str] = []
    with Engine(model) as engine:
        asked = Request("abc", max_new_tokens=50)
        first, second = (
            engine.submit(asked, listener=lambda name=name: heard.append(name)) for name in "ab"
        )
        first.cancel()
        assert set(heard) == {"a"}
        heard.clear()
        engine.step()
        assert heard == ["b"]
    assert second.is_done  # by the engine's end
    assert set(heard[1:]) == {"b"}


def test_a_pass_that_fails_is_told_of_as_well() -> None:
    heard: list[int] = []
    news = News()
    hear = news.through(lambda: heard.append(1))

    def fail() -> None:
        with news:
            hear()
            hear()
            assert heard == []
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert heard == [1]
