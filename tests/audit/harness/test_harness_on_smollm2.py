"""A real model in the harness: bitlens's adapter beside transformers'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.interop.transformers_llama import transformers_llama
from bitlens.model.sources.resolve import open_checkpoint
from support.harness_tasks import generation, multiple_choice, write_sums

lm_eval = pytest.importorskip("lm_eval", reason="extra lm-eval is not installed")
pytestmark = pytest.mark.nightly

TIE = 1e-3
"""Nats within which two answers count as tied, fixed before any run."""


class Harness:
    """Both adapters on the same weights and the same sums, of very different lengths."""

    def __init__(self, path: Path, source: Path, dtype: str = "fp32") -> None:
        from lm_eval.tasks import TaskManager

        write_sums(path, most=40)
        checkpoint = open_checkpoint(source)
        self.model = bitlens.load(checkpoint, dtype=dtype)
        self.peer = transformers_llama(
            checkpoint, torch.float32 if dtype == "fp32" else torch.bfloat16
        )
        self.path = path
        self._manager = TaskManager(include_defaults=False)

    def ours(self, task: dict[str, Any], batch_size: int) -> list[Any]:
        from bitlens.audit.harness.lm_eval_model import LmEvalModel

        return self._run(LmEvalModel(self.model, batch_size=batch_size), task)

    def theirs(self, task: dict[str, Any], batch_size: int) -> list[Any]:
        from lm_eval.models.huggingface import HFLM
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        own = self.model.tokenizer
        assert own is not None
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(own.definition),
            eos_token=own.token(own.eos_ids[0]),
        )
        lm = HFLM(pretrained=self.peer, tokenizer=tokenizer, batch_size=batch_size)
        return self._run(lm, task)

    def _run(self, lm: Any, task: dict[str, Any]) -> list[Any]:
        found = lm_eval.simple_evaluate(
            lm,
            tasks=[task],
            task_manager=self._manager,
            log_samples=True,
            bootstrap_iters=0,
        )
        return [sample["resps"] for sample in found["samples"][task["task"]]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """A second thread waits for most of the time in passes as short as these."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def harness(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return Harness(tmp_path_factory.mktemp("sums") / "sums.jsonl", smollm2_path)


def logprobs(samples: Sequence[Any]) -> torch.Tensor:
    """ln p of each answer, fp64 [samples, answers]."""
    rows = [[answer[0][0] for answer in sample] for sample in samples]
    return torch.tensor(rows, dtype=torch.float64)


def test_the_batch_moves_no_result(harness: Harness) -> None:
    task = multiple_choice(harness.path)
    assert harness.ours(task, 1) == harness.ours(task, 8)


def test_in_bf16_the_batch_moves_results_of_the_peer_alone(
    smollm2_path: Path, tmp_path: Path
) -> None:
    """The control: these batches do move answers where kernels let them."""
    harness = Harness(tmp_path / "sums.jsonl", smollm2_path, "bf16")
    harness.peer.set_attn_implementation("sdpa")  # as transformers loads it
    task = multiple_choice(harness.path)
    assert harness.ours(task, 1) == harness.ours(task, 8)
    moved = (logprobs(harness.theirs(task, 1)) - logprobs(harness.theirs(task, 8))).abs()
    print(f"{int((moved > 0).sum())} of {moved.numel()} moved, by {float(moved.max()):.3g} at most")
    assert float(moved.max()) > 1e-3


def test_both_adapters_give_the_same_answers(harness: Harness) -> None:
    task = multiple_choice(harness.path)
    ours, theirs = logprobs(harness.ours(task, 8)), logprobs(harness.theirs(task, 8))
    assert (ours - theirs).abs().max() < TIE
    first, second = ours.topk(2, dim=1).values.unbind(1)
    differ = ours.argmax(1) != theirs.argmax(1)
    assert not (differ & (first - second >= TIE)).any()
    assert (first - second >= TIE).sum() > 6, "more than half of the answers are no ties"


def test_both_adapters_write_the_same(harness: Harness) -> None:
    task = generation(harness.path)
    assert harness.ours(task, 8) == harness.theirs(task, 1)
