"""Bits do not depend on threads, instruction set, caller, or process."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.audit.invariance.observation import cut
from bitlens.model.transformer import HookedTransformer
from invariance.processes import TIMEOUT, answer_in_pool, digest, in_fork, pytest_ignore_fork
from invariance.subjects import (
    ARCHITECTURES,
    SOURCES,
    SUBJECTS,
    Views,
    assert_same,
    draw_tokens,
    dtypes_of,
    new_cache,
    padded,
    small,
)


def n_tasks() -> int:
    return len(os.listdir("/proc/self/task"))


def test_digest_sees_one_bit() -> None:
    one, other = {"x": torch.zeros(3)}, {"x": torch.tensor([0.0, 0.0, -0.0])}
    assert digest(one) == digest({"x": torch.zeros(3)})
    assert digest(one) != digest(other)


def test_threads(model: HookedTransformer) -> None:
    views, tokens_P = Views(model), draw_tokens(model, 290)
    bitlens.set_num_threads(1)
    expected = views.alone(tokens_P)
    alone = n_tasks()
    for n in (1, 2, 3, 4, 7):
        bitlens.set_num_threads(n)
        assert bitlens.get_num_threads() == n
        assert_same(views(tokens_P[None])[0], expected)
        assert n_tasks() == alone + n - 1
        (seen,) = Views(model, names=[])(tokens_P[None, :1])
        assert_same({"logits": seen["logits"]}, {"logits": expected["logits"][:1]})


def test_isa(model: HookedTransformer) -> None:
    views, tokens_P = Views(model), draw_tokens(model, 290)
    expected = views.alone(tokens_P)
    for isa in bitlens._core.available_isas():
        bitlens._core.set_isa(isa)
        assert bitlens.isa() == isa
        n = 16 if isa == "generic" else 290
        assert_same(views(tokens_P[None, :n])[0], cut(expected, 0, n))
        batch_BP, mask_BP = padded([tokens_P[:9], tokens_P[:2], tokens_P[:13]], "left")
        for n, seen in zip((9, 2, 13), views(batch_BP, mask_BP), strict=True):
            assert_same(seen, cut(expected, 0, n))


def test_concurrent_calls(model: HookedTransformer) -> None:
    """Five threads at once, each with its own prompt, decoding and capturing."""
    prompts = [draw_tokens(model, n, seed=n) for n in (5, 20, 64, 65, 130)]
    name = "blocks.1.attn.hook_pattern"
    expected = [model.run_with_cache(prompt[None], name) for prompt in prompts]
    barrier, problems, spans = threading.Barrier(len(prompts)), [], []

    def run(i: int) -> None:
        try:
            barrier.wait(TIMEOUT)
            started = time.monotonic()
            for _ in range(4):
                logits, cache = model.run_with_cache(prompts[i][None], name)
                found = {"logits": logits, name: cache[name]}
                assert_same(found, {"logits": expected[i][0], name: expected[i][1][name]})
                kv_cache, cut_at = new_cache(model), len(prompts[i]) // 2
                pieces = (prompts[i][:cut_at], prompts[i][cut_at:-1], prompts[i][-1:])
                logits = torch.cat([model(p[None], kv_cache=kv_cache) for p in pieces], dim=1)
                assert_same({"logits": logits}, {"logits": expected[i][0]})
            spans.append((started, time.monotonic()))
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert not problems, problems[0]
    assert len(spans) == len(prompts)
    assert max(start for start, _ in spans) < max(end for _, end in spans)


@pytest_ignore_fork
def test_after_fork(model: HookedTransformer) -> None:
    bitlens.set_num_threads(2)
    views, tokens_P = Views(model), draw_tokens(model, 70)
    expected = digest(views.alone(tokens_P))

    def run() -> str:
        assert n_tasks() == 1, "a forked child has one thread"
        answer = digest(views(tokens_P[None])[0])
        assert n_tasks() == 2, "its pool did not start"
        return answer

    assert in_fork(run) == expected
    assert digest(views(tokens_P[None])[0]) == expected
    assert in_fork(run) == expected


@pytest_ignore_fork
def test_fork_while_another_thread_computes() -> None:
    """The pool's lock may be held at the fork by a thread that the child does not have."""
    model = small("llama", "fp32")
    views, tokens_P = Views(model, names=[]), draw_tokens(model, 200)
    expected = digest(views.alone(tokens_P))
    stop, rounds = threading.Event(), []

    def compute() -> None:
        while not stop.is_set():
            model(tokens_P[None])
            rounds.append(1)

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        answers = [in_fork(lambda: digest(views(tokens_P[None])[0])) for _ in range(8)]
    finally:
        stop.set()
        thread.join()
    assert len(rounds) > 1
    assert answers == [expected] * 8


@pytest_ignore_fork
def test_multiprocessing_fork() -> None:
    expected = [digest(Views(small(a, "bf16")).alone(draw_tokens(small(a, "bf16"), 30)))
                for a in SUBJECTS]  # fmt: skip
    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = pool.map_async(answer_in_pool, SUBJECTS, chunksize=1).get(TIMEOUT)
    assert [found for _, found in answers] == expected
    assert os.getpid() not in {pid for pid, _ in answers}


def check_second_process(subjects: Sequence[str], isa: str) -> None:
    tests = Path(__file__).parents[1]
    code = f"from invariance.processes import answer_process; answer_process({subjects!r})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(tests), *filter(None, sys.path)]),
            "BITLENS_ISA": isa,
            "PYTHONHASHSEED": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )
    report = json.loads(run.stdout)
    assert report["isa"] == isa
    assert report["pid"] != os.getpid()
    for key, found in report["answers"].items():
        subject, dtype = key.rsplit("-", 1)
        m = small(subject, dtype)
        assert found == digest(Views(m).alone(draw_tokens(m, 30))), key
    assert len(report["answers"]) == sum(len(dtypes_of(subject)) for subject in subjects)


@pytest.mark.parametrize("isa", bitlens._core.available_isas())
def test_second_process(isa: str) -> None:
    check_second_process(ARCHITECTURES, isa)


def test_second_process_with_a_source_of_its_own() -> None:
    check_second_process(SOURCES, bitlens.isa())
