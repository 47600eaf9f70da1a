"""Tensor parallelism over real processes and gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bitlens
import pytest
from parallel.processes import (
    JOINED,
    PASSED,
    REFUSED,
    UNANSWERED,
    one_is_lost,
    other_tokens,
    real_model,
    run_processes,
    small_models,
)


def test_two_ranks_run_smollm2(tmp_path: Path, smollm2_path: Path) -> None:
    assert run_processes(2, real_model, tmp_path, str(smollm2_path)) == [PASSED] * 2


def test_three_ranks_run_small_models(tmp_path: Path) -> None:
    assert run_processes(3, small_models, tmp_path) == [PASSED] * 3


def test_other_tokens_on_one_rank(tmp_path: Path) -> None:
    assert run_processes(2, other_tokens, tmp_path) == [REFUSED] * 2
    for rank in range(2):
        assert "the ranks differ in the tokens" in (tmp_path / f"{rank}.txt").read_text()


@pytest.mark.parametrize("how", ["killed", "stuck"])
def test_a_lost_rank_ends_the_others(tmp_path: Path, how: str) -> None:
    # A rank that waited for a killed one would still wait when the processes are joined.
    timeout = 10 * JOINED if how == "killed" else UNANSWERED
    codes = run_processes(3, one_is_lost, tmp_path, how, timeout=timeout)
    assert codes == [REFUSED, -9 if how == "killed" else REFUSED, REFUSED]
    for rank in (0, 2):
        message = (tmp_path / f"{rank}.txt").read_text()
        assert message.startswith(f"rank {rank} of 3: another rank ended, or did not answer within")


def torchrun(size: int, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
         str(size), "-m", "bitlens", *arguments],
        input=stdin,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=JOINED,
        check=False,
    )  # fmt: skip


def test_torchrun_generates_and_one_rank_prints(smollm2_path: Path) -> None:
    options = ["--max-new-tokens", "8", "--temperature", "0.8", "--seed", "4"]
    prompt = "The three primary colours are"
    run = torchrun(2, "generate", str(smollm2_path), *options, stdin=prompt)
    assert run.returncode == 0, run.stderr
    expected = bitlens.load(smollm2_path).generate(
        prompt, max_new_tokens=8, temperature=0.8, seed=4
    )
    assert run.stdout.rstrip("\n") == expected.text[0]
    assert run.stderr.count("tokens/s") == 1


def test_torchrun_of_another_command_is_refused(smollm2_path: Path) -> None:
    run = torchrun(2, "info", str(smollm2_path))
    assert run.returncode != 0
    assert run.stdout == ""
    assert "only `generate` runs on several ranks" in run.stderr
