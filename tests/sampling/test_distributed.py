"""Real gloo processes: the same tokens as one process, and errors on every rank."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from bitlens.model.sampling import (
    LocalGroup,
    RankError,
    SamplingParams,
    TorchGroup,
    sample,
    sample_shards,
)
from support.sampling_cases import bits

RANKS = 3
BOUNDS = [0, 700, 700, 2000]
P = SamplingParams(seed=4, top_p=0.97, logprobs=0)
MIXTURE = (
    P,
    SamplingParams(seed=4, top_k=50, logprobs=0),
    SamplingParams(seed=9, top_k=1500),
    SamplingParams(seed=2, typical_p=0.6),
)
Job = Callable[[int, TorchGroup], object]


def _logits() -> torch.Tensor:
    return torch.randn(5, BOUNDS[-1], generator=torch.Generator().manual_seed(3))


def _slice(rank: int) -> torch.Tensor:
    return _logits()[:, BOUNDS[rank] : BOUNDS[rank + 1]]


def agreeing(rank: int, group: TorchGroup) -> object:
    found = []
    for p in MIXTURE:
        for path in ("auto", "radix"):
            output = sample(
                _slice(rank), p, positions=range(5), group=group, vocab_start=BOUNDS[rank],
                path=path, return_certificate=path == "radix",
            )  # fmt: skip
            found.append(bits(output))
    return found, group.bytes_received


def seeds_differ(rank: int, group: TorchGroup) -> object:
    p = SamplingParams(seed=rank // 2)
    return sample(_slice(rank), p, positions=range(5), group=group, vocab_start=BOUNDS[rank]).tokens


def batches_differ(rank: int, group: TorchGroup) -> object:
    x = _slice(rank)[: 5 - rank]
    return sample(x, P, positions=range(5 - rank), group=group, vocab_start=BOUNDS[rank]).tokens


def bounds_overlap(rank: int, group: TorchGroup) -> object:
    start = BOUNDS[rank] - (100 if rank == 2 else 0)
    return sample(_slice(rank), P, positions=range(5), group=group, vocab_start=start).tokens


def one_is_wrong(rank: int, group: TorchGroup) -> object:
    positions = range(5) if rank != 1 else [-1] * 5
    start = BOUNDS[rank]
    return sample(_slice(rank), P, positions=positions, group=group, vocab_start=start).tokens


def one_dies(rank: int, group: TorchGroup) -> object:
    dist.barrier()  # all are connected
    if rank == 1:
        os._exit(1)
    start = BOUNDS[rank]
    return sample(_slice(rank), P, positions=range(5), group=group, vocab_start=start).tokens


def _run(rank: int, jobs: list[Job], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", rank=rank, world_size=RANKS,
        timeout=timedelta(seconds=20),
    )  # fmt: skip
    results: list[object] = []
    for job in jobs:
        try:
            results.append(job(rank, TorchGroup()))
        except Exception as error:
            results.append(error)
    torch.save(results, f"{folder}/{rank}.pt")
    if one_dies not in jobs:
        dist.destroy_process_group()
    os._exit(0)  # a group that lost a rank has no orderly end


def _spawn(jobs: list[Job], folder: Path) -> list[list[object]]:
    """What each job gave on each rank; an error is a result. Ranks that died have none."""
    context = mp.get_context("spawn")
    processes = [context.Process(target=_run, args=(r, jobs, str(folder))) for r in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode is not None, "a rank hangs"
    files = [folder / f"{rank}.pt" for rank in range(RANKS)]
    return [torch.load(file, weights_only=False) if file.exists() else [] for file in files]


def test_processes_are_shards(tmp_path: Path) -> None:
    """One job after the other in the same processes: an error leaves the group usable."""
    jobs = [seeds_differ, batches_differ, bounds_overlap, one_is_wrong, agreeing]
    ranks = _spawn(jobs, tmp_path)
    patterns = ["seeds", "disagree", "held twice", "rank 1 could not start"]
    for rank, (*errors, (found, received)) in enumerate(ranks):
        for error, pattern in zip(errors, patterns, strict=True):
            if rank == 1 and pattern.startswith("rank 1"):
                assert isinstance(error, ValueError)
                assert "positions" in str(error)
            else:
                assert isinstance(error, RankError)
                assert pattern in str(error)
        local = LocalGroup(RANKS)
        expected = []
        for p in MIXTURE:
            for path in ("auto", "radix"):
                output = sample_shards(
                    [_slice(r) for r in range(RANKS)], p, positions=range(5), path=path,
                    return_certificate=path == "radix", group=local,
                )  # fmt: skip
                expected.append(bits(output))
        assert found == expected
        assert received == local.bytes_received[rank]


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    survivors = [ranks[0] for ranks in _spawn([one_dies], tmp_path) if ranks]
    assert len(survivors) == 2
    for error in survivors:
        assert isinstance(error, RankError)
        assert "gone or late" in str(error)


def test_a_group_needs_seeds() -> None:
    with pytest.raises(RuntimeError, match="init_process_group"):
        TorchGroup()
