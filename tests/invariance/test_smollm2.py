"""The promises on the real model: all logits, every residual stream, every hook of three layers.

Tensor names: B batch, P padded positions.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.audit.invariance.observation import Observation, cut, observe
from bitlens.model.transformer import HookedTransformer
from invariance.processes import TIMEOUT, digest, in_fork, pytest_ignore_fork
from invariance.subjects import (
    Views,
    assert_same,
    check_cut,
    draw_tokens,
    new_cache,
    padded,
    random_cuts,
)
from invariance.subnormal import switch_flush_on

LAYERS = (0, 14, 29)
N_TOKENS = 66


def names_of(model: HookedTransformer) -> list[str]:
    prefixes = tuple(f"blocks.{i}." for i in LAYERS)
    return [
        name
        for name in model.hook_names
        if name.startswith(prefixes) or name.endswith("hook_resid_post") or "blocks" not in name
    ]


def views_of(model: HookedTransformer) -> Views:
    return Views(model, names_of(model))


@functools.lru_cache(maxsize=1)
def reference(model: HookedTransformer) -> tuple[torch.Tensor, Observation]:
    tokens_P = draw_tokens(model, N_TOKENS)
    return tokens_P, views_of(model).alone(tokens_P)


def check_here(model: HookedTransformer, n: int = 20) -> None:
    tokens_P, expected = reference(model)
    assert_same(views_of(model)(tokens_P[None, :n])[0], cut(expected, 0, n))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_batch_size_and_position(smollm2: HookedTransformer, n: int) -> None:
    tokens_P, expected = reference(smollm2)
    tokens_BP = draw_tokens(smollm2, n, 8, seed=n)
    for position in {0, n // 2, n - 1}:
        tokens_BP[position] = tokens_P[:8]
        assert_same(views_of(smollm2)(tokens_BP)[position], cut(expected, 0, 8))


@pytest.mark.parametrize("side", ["left", "right"])
def test_mates_of_other_lengths(smollm2: HookedTransformer, side: str) -> None:
    tokens_P, expected = reference(smollm2)
    lengths = (5, 66, 1, 17)
    batch_BP, mask_BP = padded([tokens_P[:n] for n in lengths], side)
    for n, seen in zip(lengths, views_of(smollm2)(batch_BP, mask_BP), strict=True):
        assert_same(seen, cut(expected, 0, n))


def check_chunks(model: HookedTransformer, lengths: Sequence[int], names: Sequence[str]) -> None:
    tokens_P, expected = reference(model)
    views = Views(model, names)
    expected = {name: x for name, x in expected.items() if ": " in name or name in names}
    for length in lengths:
        check_cut(views, tokens_P, expected, range(length, N_TOKENS, length))


def test_chunks_with_hooks(smollm2: HookedTransformer) -> None:
    check_chunks(smollm2, (5, 17, 33, 64), names_of(smollm2))


def test_decode_one_by_one(smollm2: HookedTransformer) -> None:
    check_chunks(smollm2, (1,), [])


@pytest.mark.nightly
def test_chunks_of_every_length(smollm2: HookedTransformer) -> None:
    check_chunks(smollm2, range(1, 65), names_of(smollm2))


def test_random_cuts_of_1024_tokens(smollm2: HookedTransformer) -> None:
    tokens_P = draw_tokens(smollm2, 1024, seed=5)
    expected = smollm2(tokens_P[None])[0]
    for seed, n_cuts in enumerate((4, 13)):
        cache, start, moved = new_cache(smollm2), 0, []
        for stop in [*random_cuts(1024, n_cuts, seed), 1024]:
            logits = smollm2(tokens_P[None, start:stop], kv_cache=cache)[0]
            if not torch.equal(logits.view(torch.int32), expected[start:stop].view(torch.int32)):
                moved.append((start, stop))
            start = stop
        assert cache.lengths == [1024]
        assert not moved, moved


@pytest.mark.parametrize("n", [1, 2, 4])
def test_threads(smollm2: HookedTransformer, n: int) -> None:
    reference(smollm2)
    bitlens.set_num_threads(n)
    assert bitlens.get_num_threads() == n
    check_here(smollm2, N_TOKENS)


@pytest.mark.parametrize("isa", bitlens._core.available_isas())
def test_isa(smollm2: HookedTransformer, isa: str) -> None:
    tokens_P, expected = reference(smollm2)
    bitlens._core.set_isa(isa)
    assert bitlens.isa() == isa
    if isa != "generic":
        check_here(smollm2, N_TOKENS)
        return
    names = names_of(smollm2)  # without FMA instructions: one view
    (seen,) = observe(smollm2, tokens_P[None, :16], names)
    assert_same(seen, cut({name: expected[name] for name in (*names, "logits")}, 0, 16))


def test_flush_denormal_and_foreign_thread(smollm2: HookedTransformer) -> None:
    reference(smollm2)
    problems: list[BaseException] = []

    def run() -> None:
        try:
            switch_flush_on()
            check_here(smollm2)
        except BaseException as problem:
            problems.append(problem)

    run()
    torch.set_flush_denormal(False)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert not problems, problems


@pytest_ignore_fork
def test_after_fork(smollm2: HookedTransformer) -> None:
    tokens_P, expected = reference(smollm2)
    answer = in_fork(lambda: digest(views_of(smollm2)(tokens_P[None, :20])[0]))
    assert answer == digest(cut(expected, 0, 20))
    check_here(smollm2)


def answer_process(path: str, dtype: str) -> None:
    """The other side of `test_second_process`."""
    model = bitlens.load(path, dtype=dtype)
    tokens_P = draw_tokens(model, N_TOKENS)[:20]
    print(json.dumps([os.getpid(), digest(views_of(model)(tokens_P[None])[0])]))


def test_second_process(smollm2: HookedTransformer, smollm2_path: Path) -> None:
    code = f"""
from invariance.test_smollm2 import *
answer_process({str(smollm2_path)!r}, {smollm2.ops.policy.name!r})
"""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )
    pid, found = json.loads(run.stdout)
    assert pid != os.getpid()
    assert found == digest(cut(reference(smollm2)[1], 0, 20))


def test_identity_hooks(smollm2: HookedTransformer) -> None:
    tokens_P, expected = reference(smollm2)
    fired = []

    def identity(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        fired.append(hook)
        return tensor.clone()

    with smollm2.hooks([(lambda name: True, identity)]):
        logits = smollm2(tokens_P[None, :20])
    assert len(fired) == len(smollm2.hook_names)
    assert_same({"logits": logits[0]}, {"logits": expected["logits"][:20]})


def test_weight_storage(smollm2: HookedTransformer, smollm2_path: Path) -> None:
    wide = bitlens.load(smollm2_path, dtype=smollm2.ops.policy.name, storage="fp32")
    assert set(wide.storage()) == {"F32"}
    assert wide.weight_bytes() > 1.9 * smollm2.weight_bytes()
    tokens_P, expected = reference(smollm2)
    assert_same(views_of(wide)(tokens_P[None, :20])[0], cut(expected, 0, 20))


def test_generate_is_repeated_forward(smollm2: HookedTransformer) -> None:
    prompts = ["The capital of France is", "One, two, three, four, five,"]
    out = smollm2.generate(prompts, max_new_tokens=6)
    for prompt, row in zip(prompts, out.tokens, strict=True):
        ids = smollm2.to_tokens(prompt)
        for _ in range(6):
            best = smollm2(ids)[0, -1].argmax()
            ids = torch.cat([ids, best.view(1, 1)], dim=1)
        assert row[-6:].tolist() == ids[0, -6:].tolist()
