"""An answer is a function of its request: alone, among others, cold, warm, evicted, restarted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.cache.page_pool import page_bytes
from bitlens.model.serving import Completion, Engine, Request
from bitlens.model.transformer import HookedTransformer
from support.random_models import CONFIGS, byte_tokenizer, random_model
from support.static_generation import static

LONG = {"n_ctx": 320}


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


def requests_of(model: HookedTransformer, n: int, seed: int = 0) -> list[Request]:
    """Prompts that share beginnings of all lengths, greedy and drawn, filtered and not."""
    draw = random.Random(seed)
    base = [draw.randrange(model.config.d_vocab) for _ in range(180)]
    requests = []
    for i in range(n):
        shared = base[: draw.randrange(1, 180)]
        own = [draw.randrange(model.config.d_vocab) for _ in range(draw.randrange(30))]
        options: list[dict[str, Any]] = [
            {},
            {"temperature": 1.0, "top_p": 0.9},
            {"temperature": 0.8, "top_k": 20, "logprobs": 3, "n": 3},
            {"repetition_penalty": 1.3, "logprobs": 0},
            {"no_repeat_ngram_size": 2},
            {"temperature": 1.2, "min_p": 0.05, "salt": "other"},
        ]
        requests.append(
            Request([*shared, *own], max_new_tokens=draw.randrange(1, 40), seed=i, **options[i % 6])
        )
    return requests


def generated(model: HookedTransformer, request: Request) -> list[tuple[list[int], Any, str]]:
    """Returns the answers of `generate` in static passes, sample by sample."""
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
             "no_repeat_ngram_size", "logprobs", "seed", "n")  # fmt: skip
    found = static(model, request.prompt, **{name: getattr(request, name) for name in names})
    start = len(request.prompt)
    answers = []
    for b, n in enumerate(found.n_new):
        ids = found.tokens[b, start : start + n].tolist()
        logprobs = None if found.logprobs is None else found.logprobs[b, :n].tolist()
        answers.append((ids, logprobs, found.finish_reason[b]))
    return answers


def answers(completions: list[Completion]) -> list[tuple[list[int], Any, str]]:
    found = []
    for each in completions:
        logprobs = None if each.logprobs is None else [first for first, *_ in each.logprobs]
        found.append((each.ids, logprobs, each.finish_reason))
    return found


def pages(model: HookedTransformer, n: int) -> int:
    return n * (page_bytes(model.config, model.ops.policy.activation) + 1024)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_among_others_in_any_order_as_generate_alone(architecture: str) -> None:
    model = random_model(architecture, dtype="bf16", changes=LONG)
    requests = requests_of(model, 24)
    want = [generated(model, request) for request in requests]
    order = list(range(len(requests)))
    random.Random(1).shuffle(order)
    with Engine(model, max_running=6, token_budget=50, cache_bytes=pages(model, 40)) as engine:
        for _ in range(2):  # cold, then warm
            handles = {i: engine.submit(requests[i]) for i in order}
            for i, handle in handles.items():
                assert answers(handle.results()) == want[i]
        stats = engine.stats()
    assert stats.cache.hits > len(requests)
    assert stats.cache.evictions > 0
    assert stats.steps < stats.tokens
    assert engine.cache.pool.n_references == 0


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "hf_bf16"])
@pytest.mark.parametrize("threads", [1, 2])
def test_forty_requests_alone_and_among_31_others(threads: int, dtype: str) -> None:
    model = random_model("mistral", dtype=dtype, changes=LONG)
    bitlens.set_num_threads(threads)
    requests = requests_of(model, 40, seed=2)
    want = []
    for request in requests:
        with Engine(model) as engine:  # restarted for each
            want.append(answers(engine.submit(request).results()))
    assert want == [generated(model, request) for request in requests]
    for seed in range(8):
        order = list(range(40))
        random.Random(seed).shuffle(order)
        room = pages(model, 60) if seed % 2 else None  # too little to keep all
        with Engine(model, max_running=32, token_budget=40 + 70 * seed, cache_bytes=room) as engine:
            for _ in range(2):  # cold, then warm
                handles = {i: engine.submit(requests[i]) for i in order}
                for i in order:
                    assert answers(handles[i].results()) == want[i]
            stats = engine.stats()
        assert stats.cache.hit_tokens > 40 * 50
        assert (stats.cache.evictions > 0) == (room is not None)


def test_rows_that_give_up_their_pages_are_computed_again() -> None:
    model = random_model("llama", changes=LONG)
    requests = requests_of(model, 18)
    want = [generated(model, request) for request in requests]
    with Engine(model, max_running=6, token_budget=70, cache_bytes=pages(model, 7)) as engine:
        handles = [engine.submit(request) for request in requests]
        assert [answers(handle.results()) for handle in handles] == want
        stats = engine.stats()
    assert stats.preemptions > 0
    assert stats.cache.evictions > 0
    assert stats.cache.bytes <= pages(model, 7)


@pytest.mark.parametrize(("max_running", "n_late"), [(32, 0), (3, 2), (1, 4)])
def test_samples_share_their_prompt(max_running: int, n_late: int) -> None:
    """Its pass and its pages; those without a place at once read its last token again."""
    model = random_model("llama", changes=LONG)
    (prompt,) = (request.prompt for request in requests_of(model, 1))
    request = Request(prompt, max_new_tokens=5, temperature=1.0, n=5, seed=3)
    with Engine(model, max_running=max_running) as engine:
        found = engine.submit(request).results()
        stats = engine.stats()
    n, n_forked = len(prompt), 4 - n_late
    assert [each.usage.cached for each in found] == [0, *[n] * n_forked, *[n - 1] * n_late]
    assert [each.usage.written for each in found] == [n, *[0] * n_forked, *[1] * n_late]
    assert stats.tokens == n + n_late + 5 * 4
    assert engine.cache.pool.n_references == 0
    assert answers(found) == generated(model, request)


def test_a_neighbours_prompt_costs_what_an_unknown_one_does() -> None:
    """Counts what another salt's prompts would tell by the clock: tokens and steps."""
    model = random_model("llama", changes=LONG)
    known, unknown, mine = ([seed + i % 250 for i in range(180)] for seed in range(3))

    with Engine(model, token_budget=50) as engine:

        def cost(prompt: list[int], salt: str) -> tuple[int, int]:
            before = engine.stats()
            engine.submit(Request(prompt, max_new_tokens=3, salt=salt)).result()
            after = engine.stats()
            return after.tokens - before.tokens, after.steps - before.steps

        for prompt, salt in ((known, "neighbour"), (mine, "me")):
            cost(prompt, salt)
        assert cost(known, "me") == cost(unknown, "me") == (182, 6)
        assert cost(mine, "me") == cost(known, "neighbour") == (3, 3), "the control must tell"


def test_captures_of_a_hit_are_computed_again_with_the_same_bits() -> None:
    model = random_model("qwen3", changes=LONG)
    names = ["blocks.1.hook_resid_post", "blocks.2.attn.hook_pattern", "hook_embed"]
    request = Request(requests_of(model, 1)[0].prompt, max_new_tokens=6, capture=names)
    want = model.generate(request.prompt, max_new_tokens=6, capture=names)
    others = requests_of(model, 6, seed=4)
    with Engine(model, token_budget=40) as engine:
        engine.submit(Request(request.prompt, max_new_tokens=1)).result()
        handles = [engine.submit(each) for each in [*others[:3], request, *others[3:]]]
        found = handles[3].result()
        assert [h.results() for h in handles]
        assert found.usage.cached == 0
        again = engine.submit(Request(request.prompt, max_new_tokens=6)).result()
    assert again.usage.cached == len(request.prompt) - 1
    assert found.ids == again.ids == want.tokens[0, len(request.prompt) :].tolist()
    assert found.captured.keys() == set(names)
    for name, x in found.captured.items():
        assert torch.equal(x, want.captured[name]), name


def test_pieces_make_the_text_and_threads_may_wait_for_any_of_them() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = random_model("llama", tokenizer=byte_tokenizer(), changes=LONG)
    texts = ["Once upon a time", "Once upon a", "It was", "Once upon a time there"]
    requests = [
        Request(
            text, max_new_tokens=20, temperature=1.0, seed=i, stop=["e", "zz"] if i % 2 else None
        )
        for i, text in enumerate(texts)
    ]
    want = [
        static(model, r.prompt, max_new_tokens=20, temperature=1.0, seed=r.seed, stop=r.stop).text[
            0
        ]
        for r in requests
    ]
    with Engine(model) as engine, ThreadPoolExecutor(4) as pool:
        handles = [engine.submit(request) for request in requests]
        found = list(pool.map(lambda handle: "".join(p.text for p in handle), handles))
        assert found == want
        assert [handle.result().text for handle in handles] == want
    assert all(handle.is_done for handle in handles)


def pieces_until(handle: Any, n: int) -> Iterator[Any]:
    for i, piece in enumerate(handle):
        if i == n:
            return
        yield piece


def test_whoever_leaves_frees_pages_before_the_next_step() -> None:
    model = random_model("llama", changes=LONG)
    first, other = requests_of(model, 2)
    want = generated(model, other)
    with Engine(model) as engine:
        leaving = engine.submit(Request(first.prompt, max_new_tokens=100, seed=0))
        staying = engine.submit(other)
        assert len(list(pieces_until(leaving, 3))) == 3
        assert engine.stats().running == 1
        held = engine.cache.pool.n_references - len(engine.cache._nodes)
        assert held == -(-(len(other.prompt) + len(staying._events)) // 64)
        assert leaving.result().finish_reason == "cancelled"
        assert len(leaving.result().ids) >= 3
        assert answers(staying.results()) == want


def test_deadlines_end_answers_by_the_engines_clock() -> None:
    model = random_model("llama", changes=LONG)
    now = [100.0]
    first, other = requests_of(model, 2)
    with Engine(model, clock=lambda: now[0]) as engine:
        with pytest.raises(ValueError, match="deadline"):
            engine.submit(Request([1, 2], deadline=100.0))
        late = engine.submit(Request(first.prompt, max_new_tokens=100, deadline=105.0))
        handle = engine.submit(other)
        for _ in range(4):
            engine.step()
        now[0] = 50.0  # a clock that runs backwards ends nothing
        engine.step()
        assert not late.is_done
        now[0] = 106.0
        assert answers(handle.results()) == generated(model, other)
        assert late.result().finish_reason == "deadline"
        assert len(late.result().ids) == 5


def test_nobody_starves() -> None:
    """A request waits for those before it, and no longer: requests are admitted in order.

    In every step the oldest sample that runs writes a token or reads at least what the others leave
    of the budget, and it keeps its pages. So nobody waits for more steps than those before it take
    one after the other.
    """
    model = random_model("llama", changes=LONG)
    requests = requests_of(model, 20, seed=5)
    n_running, budget, room = 3, 20, pages(model, 12)
    left = budget - n_running
    alone = [r.n * (-(-len(r.prompt) // left) + r.max_new_tokens) for r in requests]
    with Engine(model, max_running=n_running, token_budget=budget, cache_bytes=room) as engine:
        handles = [engine.submit(request) for request in requests]
        begun: dict[int, int] = {}
        while engine.step():
            for row in engine._batch.queues.running:
                begun.setdefault(row.handle.number, engine.stats().steps - 1)
        assert list(begun) == [handle.number for handle in handles] == sorted(begun)
        for i, steps in enumerate(begun.values()):
            assert steps <= sum(alone[:i])
        assert all(handle.is_done for handle in handles)
