"""The engine on a model of a GPU: its answers, whoever runs beside them, are those of the CPU's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.interp.monitors import Monitor
from bitlens.model.cache.page_pool import page_bytes
from bitlens.model.load import load
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.serving import Completion, Engine, Request
from bitlens.model.transformer import HookedTransformer
from support.cuda_host import assert_same_bits, host_library, host_model, threads_in_order
from support.random_models import CONFIGS, random_checkpoint
from support.random_probes import random_probe

Models = tuple[HookedTransformer, HookedTransformer]
PROMPT = [5, 17, 200, 3, 9, 250, 1, 2] * 9
"""More than a page of 64, which later requests find there."""


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def models(request: pytest.FixtureRequest) -> Models:
    config = CONFIGS["qwen2"]
    checkpoint = random_checkpoint("qwen2", n_layers=1, layers=config.layers[:1], n_ctx=256)
    return host_model(checkpoint, request.param), load(checkpoint, dtype=request.param)


def engine_of(model: HookedTransformer, n_pages: int = 40) -> Engine:
    room = n_pages * (page_bytes(model.config, model.ops.policy.activation) + 1024)
    return Engine(model, cache_bytes=room, max_running=6, token_budget=40)


def requests(model: HookedTransformer) -> list[Request]:
    monitor = Monitor(
        random_probe(model, "blocks.0.hook_resid_post"), threshold=0.0, on_alarm="flag"
    )
    options: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0, "top_p": 0.9, "n": 2, "logprobs": 2},
        {"repetition_penalty": 1.3, "prompt_logprobs": 1},
        {"capture": ["blocks.0.attn.hook_pattern", "blocks.0.mlp.hook_post"]},
        {"monitors": [monitor]},
        {"temperature": 0.8, "top_k": 9, "salt": "other"},
    ]
    lengths = (70, 3, 66, 20, 5, 71)
    return [
        Request(PROMPT[:length], max_new_tokens=4, seed=i, **chosen)
        for i, (length, chosen) in enumerate(zip(lengths, options, strict=True))
    ]


def answered(engine: Engine, asked: list[Request]) -> list[list[Completion]]:
    handles = [engine.submit(request) for request in asked]
    return [handle.results() for handle in handles]


def assert_same_answers(found: list[Completion], wanted: list[Completion]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        for name in ("ids", "finish_reason", "logprobs", "prompt_logprobs"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert list(ours.captured) == list(theirs.captured)
        for name, x in theirs.captured.items():
            assert_same_bits(ours.captured[name], x)
        for name, x in theirs.scores.items():
            assert_same_bits(ours.scores[name], x)
        assert len(ours.alarms) == len(theirs.alarms)


def test_answers_are_the_cpus(models: Models) -> None:
    """Cold, and again where prompts are kept; several steps of prompts beside decoding rows."""
    before = host_library().launches()
    with threads_in_order("7"), engine_of(models[0]) as ours, engine_of(models[1]) as theirs:
        for _ in range(2):
            pairs = zip(
                answered(ours, requests(models[0])),
                answered(theirs, requests(models[1])),
                strict=True,
            )
            for found, wanted in pairs:
                assert_same_answers(found, wanted)
        assert ours.stats().cache.hits == theirs.stats().cache.hits > 0
    after = host_library().launches()
    for name in ("rope_kv_write", "attention_scores", "sample", "linear_tiled", "linear_few_rows"):
        assert after[name] > before[name]


def test_one_answer_is_generates(models: Models) -> None:
    model, options = models[0], {"temperature": 1.0, "seed": 4, "max_new_tokens": 5}
    with engine_of(model) as engine:
        beside = engine.submit(Request(PROMPT[:30], max_new_tokens=9))
        (found,) = answered(engine, [Request(PROMPT[:7], **options)])
        beside.result()
    wanted = model.generate([PROMPT[:7]], **options)
    assert found[0].ids == wanted.tokens[0, 7:].cpu().tolist()


def test_a_step_without_memory_ends_its_rows_alone(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(PROMPT[:20], max_new_tokens=3)
    left = iter(range(9))
    allocate = CudaKernels.empty

    def empty(self: CudaKernels, *arguments: Any, **options: Any) -> torch.Tensor:
        if next(left, None) is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return allocate(self, *arguments, **options)

    with engine_of(models[0]) as ours, engine_of(models[1]) as theirs:
        with monkeypatch.context() as patched:
            patched.setattr(CudaKernels, "empty", empty)
            with pytest.raises(torch.OutOfMemoryError):
                ours.submit(request).result()
        assert_same_answers(*(answered(engine, [request])[0] for engine in (ours, theirs)))
