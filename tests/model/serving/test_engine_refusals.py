"""An engine refuses what makes no sense, and serves the next request."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.model.serving import Engine, EngineFull, Request
from support.random_models import byte_tokenizer, random_model
from support.static_generation import static

PROMPT = [5, 6, 7, 8]
NEXT = Request(PROMPT, max_new_tokens=4)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model("llama", tokenizer=byte_tokenizer())


@pytest.fixture
def engine(model: Any) -> Any:
    want = static(model, PROMPT, max_new_tokens=4).tokens[0, 4:].tolist()
    with Engine(model) as engine:
        yield engine
        assert engine.submit(NEXT).result().ids == want
        assert engine.stats().running == engine.stats().waiting == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_running": 0}, "max_running"),
        ({"token_budget": 32}, "token_budget"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"cache_bytes": -5}, "one page of 64 tokens takes"),
        ({"ttl": -1.0}, "ttl"),
    ],
)
def test_engines_that_could_serve_nobody(model: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(model, **options)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "prompt"),
        ("", {}, "prompt"),
        (["a", "b"], {}, "expected one"),
        ([1, 300], {}, "vocabulary"),
        ([-1], {}, "vocabulary"),
        (PROMPT, {"max_new_tokens": 0}, "max_new_tokens"),
        (PROMPT, {"max_new_tokens": 1000}, "exceeds the context"),
        (PROMPT, {"min_new_tokens": 99}, "min_new_tokens"),
        (PROMPT, {"n": 0}, "n = 0"),
        (PROMPT, {"temperature": -1.0}, "temperature"),
        (PROMPT, {"top_k": 0}, "top_k"),
        (PROMPT, {"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        (PROMPT, {"stop": ""}, "stop"),
        (PROMPT, {"logit_bias": {9999: 1.0}}, "logit_bias: id 9999"),
        (PROMPT, {"allowed_token_ids": [-1]}, "allowed_token_ids"),
        (PROMPT, {"deadline": -1.0}, "deadline"),
        ([{"role": "user", "content": "hi"}], {}, "template"),
        (PROMPT, {"template_variables": {"x": 1}}, "template_variables"),
    ],
)
def test_requests_that_make_no_sense(engine: Any, prompt: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine.submit(Request(prompt, **options))


def test_hooks_that_do_not_exist(engine: Any) -> None:
    with pytest.raises(KeyError, match="hook_resid_post"):
        engine.submit(Request(PROMPT, capture="blocks.0.hook_resid_pots"))


def test_a_request_that_never_fits(model: Any) -> None:
    with (
        Engine(model, cache_bytes=40_000) as engine,
        pytest.raises(ValueError, match="give the engine more cache_bytes"),
    ):
        engine.submit(Request([1] * 100, max_new_tokens=28))


def test_more_requests_than_may_wait(model: Any) -> None:
    with Engine(model, max_waiting=2) as engine:
        handles = [engine.submit(NEXT) for _ in range(2)]
        with pytest.raises(EngineFull, match="2 samples wait"):
            engine.submit(NEXT)
        assert all(len(handle.result().ids) == 4 for handle in handles)
        assert len(engine.submit(NEXT).result().ids) == 4


def test_a_stop_function_that_raises_ends_its_own_request(engine: Any) -> None:
    def angry(ids: list[int], text: str) -> bool:
        if len(ids) == 3:
            raise RuntimeError("no more")
        return False

    bad = engine.submit(Request(PROMPT, max_new_tokens=9, stop=angry))
    good = engine.submit(NEXT)
    assert len(good.result().ids) == 4
    with pytest.raises(RuntimeError, match="no more") as caught:
        bad.result()
    (left,) = caught.value.completions
    assert (left.finish_reason, len(left.ids)) == ("error", 3)


def test_a_consumer_that_raises_cancels_its_own_request(engine: Any) -> None:
    handle = engine.submit(Request(PROMPT, max_new_tokens=50))

    def consume() -> None:
        for _ in handle:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert handle.result().finish_reason == "cancelled"
    assert engine.stats().running == 0


def test_one_answer_of_several(engine: Any) -> None:
    handle = engine.submit(Request(PROMPT, max_new_tokens=3, n=2, temperature=1.0))
    with pytest.raises(ValueError, match=r"results\(\)"):
        handle.result()
    first, second = handle.results()
    assert first.seed == second.seed


def test_an_answer_that_takes_too_long(engine: Any) -> None:
    handle = engine.submit(Request(PROMPT, max_new_tokens=50))
    with pytest.raises(TimeoutError, match="within 0 seconds"):
        handle.result(timeout=0)
    assert len(handle.result(timeout=60).ids) == 50


def test_hooks_on_the_model_are_refused_until_they_leave(engine: Any, model: Any) -> None:
    handle = engine.submit(NEXT)
    with (
        model.hooks([("hook_embed", lambda x, hook: None)]),
        pytest.raises(RuntimeError, match="hooks or overrides are installed"),
    ):
        handle.result()
    assert len(handle.result().ids) == 4


def test_a_pass_that_fails_ends_the_requests_in_it_alone(
    engine: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = engine.submit(Request(PROMPT, max_new_tokens=9))
    engine.step()

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the power went out")

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward_last_slice", fail)
        with pytest.raises(OSError, match="power"):
            handle.result()
    assert engine.cache.stats().pages_referenced == 0


def test_logits_that_are_no_numbers_end_their_row(
    engine: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = model.forward_last_slice
    bad = engine.submit(Request([9, 9], max_new_tokens=9))
    good = engine.submit(NEXT)

    def poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        logits: torch.Tensor = original(*args, **kwargs)
        logits[0] = torch.nan
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward_last_slice", poisoned)
        engine.step()
    with pytest.raises(ValueError, match="NaN"):
        bad.result()
    assert len(good.result().ids) == 4


def test_a_closed_engine(model: Any) -> None:
    engine = Engine(model)
    handle = engine.submit(NEXT)
    engine.close()
    assert handle.result().finish_reason == "cancelled"
    for call in (engine.step, lambda: engine.submit(NEXT)):
        with pytest.raises(RuntimeError, match="closed"):
            call()


@pytest.mark.parametrize("place", ["_admit", "_pass", "_choose", "_fork", "_advance"])
def test_an_interrupted_step_is_taken_again(
    model: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Ctrl-C before or after a pass: whoever goes on waiting gets every answer, with its bits."""
    wanted = [
        Request([7 + i, 3, 9] * 20, max_new_tokens=12, temperature=1.0, seed=i, n=1 + i % 2)
        for i in range(4)
    ]
    with Engine(model, token_budget=50) as engine:
        expected = [[each.ids for each in engine.submit(r).results()] for r in wanted]
    with Engine(model, token_budget=50) as engine:
        handles = [engine.submit(request) for request in wanted]
        original, calls = getattr(engine._batch, place), 0

        def interrupted(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % 4 == 3:
                raise KeyboardInterrupt
            return original(*args)

        monkeypatch.setattr(engine._batch, place, interrupted)
        n_interrupted = n_steps = 0
        while not all(handle.is_done for handle in handles):
            try:
                engine.step()
            except KeyboardInterrupt:
                n_interrupted += 1
            n_steps += 1
            assert n_steps < 1000, "an answer never comes"
        assert n_interrupted > 1
        assert [[each.ids for each in handle.results()] for handle in handles] == expected
        stats = engine.stats().cache
        assert (stats.pages_referenced, stats.pages_used) == (0, engine.cache.pool.n_references)
