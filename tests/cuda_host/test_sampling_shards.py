"""Slices of a vocabulary on GPUs, merged by the rounds of the CPU's ranks: the same choices."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

import pytest
import torch
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.ops.cuda.shard import CudaShard
from bitlens.model.sampling import SampleOutput, SamplingParams
from bitlens.model.sampling.sample import sample_shards
from support.cuda_host import ORDERS, host_library, threads_in_order

N = 701
CUTS = {"whole": [N], "uneven": [300, 0, 401], "many": [1, 255, 2, 443]}
PARAMS = [
    {"temperature": 0.0},
    {"top_k": 40, "logprobs": 3},
    {"top_p": 0.8},
    {"top_k": 20, "top_p": 0.5, "filter_apply_order": "joint"},
    {"min_p": 0.01, "top_p": 0.99},
    {"typical_p": 0.6},
    {"typical_p": 0.3, "top_p": 0.9, "min_p": 0.001, "logprobs": 0},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "top_p": 0.9},
    {"logit_bias": {3: 4.0, 650: 5.0}, "allowed_token_ids": [3, 5, 310, 650], "top_k": 3},
    {"min_tokens": 9, "stop_token_ids": [0, 301]},
    {"top_k": 1200, "top_p": 0.97},
]
PROMPT, OUTPUT = [4, 8, 315, 4], [16, 623, 4, 16]


def logits(rows: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows with ties across slices, tokens without a weight, and one row that is not valid."""
    x = 3 * torch.randn(rows, N, generator=torch.Generator().manual_seed(5))
    x[:, 298:304] = x[:, :1] + 2
    x[:, -2] = -80.0
    return torch.cat([x, torch.full((1, N), float("nan"))]).to(dtype)


def merged(shards: Sequence[torch.Tensor], certify: bool, seed: int = 11) -> SampleOutput:
    fields = [{"temperature": 0.9, "seed": seed} | changes for changes in [*PARAMS, {}]]
    size = len(fields)
    return sample_shards(
        shards, [SamplingParams(**x) for x in fields], positions=list(range(7, 7 + size)),
        prompt_ids=[PROMPT] * size, output_ids=[OUTPUT] * size, return_certificate=certify,
    )  # fmt: skip


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Slices are prepared on the executor, as on a GPU where the logits are there."""
    module = sys.modules["bitlens.model.sampling.sample"]
    prepare = functools.partial(CudaShard.on, CudaKernels(host_library()))
    monkeypatch.setattr(module, "shards_on", lambda device: prepare)
    return monkeypatch


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("certify", [False, True])
def test_merged_choices(on_gpu: pytest.MonkeyPatch, cut: str, certify: bool, order: str) -> None:
    x = logits(len(PARAMS), torch.bfloat16 if cut == "uneven" else torch.float32)
    parts = [part.contiguous() for part in x.split(CUTS[cut], dim=1)]
    before = host_library().launches()
    with threads_in_order(order):
        found = merged([part.to(host_library().device) for part in parts], certify)
    after = host_library().launches()
    ran = {name for name in after if after[name] > before[name]}
    both = {"sample_prepare", "sample_edit", "sample_perturbed", "sample_top", "sample_before"}
    assert both | {"sample_mask", "sample_typical_sums"} <= ran
    if certify:
        assert {"sample_histogram", "sample_nth_tie"} <= ran
    on_gpu.undo()
    wanted = merged(parts, certify)
    assert host_library().launches() == after
    assert found.tokens.tolist() == wanted.tokens.tolist()
    assert found.valid.tolist() == [True] * len(PARAMS) + [False]
    assert found.certificate == wanted.certificate
    for name in ("logprobs", "top_ids", "top_logprobs"):
        ours, theirs = getattr(found, name), getattr(wanted, name)
        assert ours.numpy().tobytes() == theirs.numpy().tobytes(), name


def test_another_seed_is_another_choice(on_gpu: pytest.MonkeyPatch) -> None:
    """The negative control."""
    parts = [x.to(host_library().device) for x in logits(len(PARAMS), torch.float32).split(350, 1)]
    tokens = [merged(parts, certify=False, seed=seed).tokens.tolist() for seed in (1, 2)]
    assert tokens[0] != tokens[1]
