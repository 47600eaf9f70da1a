"""What the processes of `test_processes.py` run. A module of its own: they import it by name."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import torch
import torch.multiprocessing
from bitlens.audit.invariance.observation import observe
from bitlens.model.parallel import GroupError
from invariance.subjects import assert_same
from parallel.sharded import checkpoint_of, draw_batch, whole

JOINED = 120.0
"""Seconds after which a test gives up on its processes."""
UNANSWERED = 3.0
"""Seconds a rank waits for others in tests of stuck ranks."""

PASSED, REFUSED = 0, 3


def run_processes(
    size: int, fn: Callable[..., None], folder: Path, *args: Any, timeout: float = JOINED
) -> list[int]:
    """fn(rank, *args) in `size` processes of a gloo group; their exit codes.

    A rank that ends in a GroupError exits with REFUSED and leaves its message in folder/<rank>.txt.
    """
    context = torch.multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_enter, args=(rank, size, fn, str(folder), timeout, args))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + JOINED
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        process.kill()
        process.join()
    codes = [process.exitcode for process in processes]
    return [code if code is not None else -1 for code in codes]


def _enter(
    rank: int,
    size: int,
    fn: Callable[..., None],
    folder: str,
    timeout: float,
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    bitlens.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=timeout),
    )
    try:
        fn(rank, *args)
    except GroupError as error:
        (Path(folder) / f"{rank}.txt").write_text(str(error))
        sys.stdout.flush()
        os._exit(REFUSED)
    torch.distributed.destroy_process_group()


def world() -> Any:
    return torch.distributed.group.WORLD


def small_models(rank: int) -> None:
    tokens_BP, mask_BP = draw_batch(260)
    for architecture, dtype, temperature in (("qwen2", "fp32", 1.2), ("gemma3", "bf16", 0.0)):
        plain = whole(architecture, dtype)
        model = bitlens.load(checkpoint_of(architecture), dtype=dtype, group=world())
        rows = zip(
            observe(model, tokens_BP, model.hook_names, mask_BP),
            observe(plain, tokens_BP, plain.hook_names, mask_BP),
            strict=True,
        )
        for found, expected in rows:
            assert_same(found, expected)
        options: Any = {"temperature": temperature, "seed": 5, "max_new_tokens": 64}
        found, expected = (
            m.generate(tokens_BP, attention_mask=mask_BP, **options) for m in (model, plain)
        )
        assert torch.equal(found.tokens, expected.tokens)


def real_model(rank: int, path: str) -> None:
    plain, model = bitlens.load(path), bitlens.load(path, group=world())
    tokens_BP = plain.to_tokens("Paris is the capital of France, and")
    names = [name for name in plain.hook_names if "blocks" not in name or "blocks.29" in name]
    (found,), (expected,) = (observe(m, tokens_BP, names) for m in (model, plain))
    assert_same(found, expected)
    found, expected = (
        m.generate(tokens_BP, max_new_tokens=64, temperature=0.9, top_p=0.95, seed=2)
        for m in (model, plain)
    )
    assert torch.equal(found.tokens, expected.tokens)
    assert model.weight_bytes() < 0.51 * plain.weight_bytes()


def other_tokens(rank: int) -> None:
    bitlens.load(checkpoint_of("llama"), group=world())(torch.tensor([[1, 2, 3 + rank]]))


def one_is_lost(rank: int, how: str) -> None:
    """Rank 1 is killed, or hangs, after some tokens."""
    model = bitlens.load(checkpoint_of("llama"), group=world())
    passes = 0

    def count(tensor: torch.Tensor, hook: Any) -> None:
        nonlocal passes
        passes += 1
        if passes == 3 and rank == 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(2 * UNANSWERED)

    with model.hooks([("blocks.1.hook_resid_pre", count)]):
        model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=20)
