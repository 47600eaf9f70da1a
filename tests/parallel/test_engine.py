"""An engine over ranks: rank 0 has the clock, and the answers are those of one rank."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from bitlens.interp.monitors import Monitor
from bitlens.model.serving import Completion, Engine, Request
from bitlens.model.transformer import HookedTransformer
from parallel.sharded import draw_batch, on_ranks, whole
from support.random_probes import random_probe

TOKENS_BP, _ = draw_batch(260)
REQUESTS = [
    Request(TOKENS_BP[i % 3, : 4 + i].tolist(), max_new_tokens=6, temperature=t, seed=i, logprobs=1)
    for i, t in enumerate([0.0, 1.0, 0.7, 0.0, 1.3])
]


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


def content(found: list[Completion]) -> list[Any]:
    return [(each.ids, each.logprobs, each.finish_reason, each.usage) for each in found]


@pytest.mark.parametrize("size", [2, 3])
def test_answers_are_those_of_one_rank(size: int) -> None:
    def serve(model: HookedTransformer) -> Any:
        with Engine(model, max_running=3, token_budget=10) as engine:
            for _ in range(2):  # cold, then warm
                handles = [engine.submit(request) for request in REQUESTS]
                found = [content(handle.results()) for handle in handles]
            return found, engine.stats()

    want, stats = serve(whole("llama"))
    assert stats.cache.hits > 5
    for answers, of_rank in on_ranks(size, serve):
        assert answers == want
        assert of_rank == stats


def test_scores_and_alarms_are_those_of_one_rank() -> None:
    hooks = "blocks.1.hook_resid_post", "blocks.0.mlp.hook_post"

    def serve(model: HookedTransformer) -> Any:
        probes = [random_probe(model, hook, "last", seed) for seed, hook in enumerate(hooks)]
        monitors = [
            Monitor(probe, threshold=t) for probe, t in zip(probes, (1.0, 9e9), strict=True)
        ]
        with Engine(model, max_running=3, token_budget=10) as engine:
            requests = [
                replace(each, monitors=monitors[: i % 3]) for i, each in enumerate(REQUESTS)
            ]
            for _ in range(2):  # cold, then warm
                found = [engine.submit(request) for request in requests]
                done = [handle.result() for handle in found]
            replayed = engine.stats().replayed
        scores = [
            {name: x.view(torch.int32).tolist() for name, x in c.scores.items()} for c in done
        ]
        return content(done), scores, [c.alarms for c in done], replayed

    want = serve(whole("llama"))
    assert {"alarm", "length"} == {reason for _, _, reason, _ in want[0]}
    assert [len(scores) for scores in want[1]] == [0, 1, 2, 0, 1]
    assert want[3] > 0
    assert on_ranks(2, serve) == [want, want]


def test_the_clock_and_cancellations_are_rank_0s() -> None:
    def serve(model: HookedTransformer) -> Any:
        assert model.group is not None
        rank = model.group.rank
        now = [10.0 + rank]
        with Engine(model, clock=lambda: now[0]) as engine:
            engine.step()
            late = engine.submit(Request([1, 2, 3], max_new_tokens=50, deadline=20.0))
            left = engine.submit(Request([3, 2, 1], max_new_tokens=50))
            for _ in range(3):
                engine.step()
            now[0] = 15.0 if rank == 0 else 1000.0
            if rank == 1:
                left.cancel()
            engine.step()
            assert not late.is_done and not left.is_done  # noqa: PT018
            now[0] = 21.0 if rank == 0 else 0.0
            if rank == 0:
                left.cancel()
            engine.step()
            return [(h.result().finish_reason, len(h.result().ids)) for h in (late, left)]

    for found in on_ranks(2, serve):
        assert found == [("deadline", 4), ("cancelled", 4)]
