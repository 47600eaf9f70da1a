"""The sampler's kernel gives the tokens, log-probabilities and certificates of the CPU's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.ops.cuda.sampler import CudaSampler, sample_rows
from bitlens.model.sampling import SamplingParams, sample
from bitlens.model.sampling.batch import Batch
from bitlens.model.sampling.certificate import Certificate
from bitlens.model.sampling.shard import id_of, x_of
from bitlens.model.sampling.typical import typical_set
from support.cuda_host import ORDERS, host_library, launching, threads_in_order


@pytest.fixture(params=ORDERS, autouse=True)
def order(request: pytest.FixtureRequest) -> Iterator[None]:
    with threads_in_order(request.param):
        yield


def kernels() -> CudaKernels:
    return CudaKernels(host_library())


def params(**changes: object) -> SamplingParams:
    return SamplingParams(**({"temperature": 0.9, "seed": 11, "logprobs": 0} | changes))


PARAMS = [
    params(),
    params(temperature=0.0),
    params(top_k=1),
    params(top_k=40),
    params(top_p=0.8),
    params(top_k=20, top_p=0.5),
    params(top_k=20, top_p=0.5, filter_apply_order="joint"),
    params(min_p=0.05),
    params(typical_p=0.6),
    params(typical_p=0.3, top_p=0.9, min_p=0.001),
    params(repetition_penalty=1.3, frequency_penalty=0.2, presence_penalty=0.1, top_p=0.9),
    params(logit_bias={3: 4.0, 70: -2.5}, allowed_token_ids=[3, 5, 70, 90], top_k=3),
    params(min_tokens=9, stop_token_ids=[0, 1, 2]),
]
PROMPT, OUTPUT = [4, 8, 15, 4], [16, 23, 4, 16]


def logits(rows: int, n: int) -> torch.Tensor:
    """Rows with ties, and with tokens too unlikely to have a weight."""
    x = 3 * torch.randn(rows, n, generator=torch.Generator().manual_seed(n))
    x[:, n // 2 : n // 2 + 6] = x[:, :1]
    x[:, -2] = -80.0
    return x


@pytest.mark.parametrize("n", [101, 700])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_and_certificates(n: int, dtype: torch.dtype) -> None:
    x, size = logits(len(PARAMS), n).to(dtype), len(PARAMS)
    positions, history = list(range(7, 7 + size)), ([PROMPT] * size, [OUTPUT] * size)
    wanted = sample(
        x, PARAMS, positions=positions, prompt_ids=history[0], output_ids=history[1],
        return_certificate=True,
    )  # fmt: skip
    batch = Batch.make(PARAMS, positions, None, *history, size=size, seeds_must_agree=False)
    with launching("cast", "sample", "sample_edit"):
        found, _ = sample_rows(kernels(), x.to(kernels().device), batch)
    assert id_of(found["key"]).tolist() == wanted.tokens.tolist()
    assert wanted.logprobs is not None
    assert found["logprob"].tobytes() == wanted.logprobs.numpy().tobytes()
    for row, certificate in zip(found, wanted.certificate or [], strict=True):
        last, typical_key = row["threshold_key"][None], int(row["typical_key"])
        assert Certificate(
            float(row["x_max"]), int(row["total"]), int(row["kept"]), int(row["mass"]),
            float(x_of(last)[0]), int(id_of(last)[0]), int(row["rank"]), int(row["mass_before"]),
            typical_set(int(row["centre"]), typical_key) if typical_key else None,
        ) == certificate  # fmt: skip


def test_rows_that_are_not_valid() -> None:
    x = torch.zeros(4, 50)
    x[0, 3], x[1, 4], x[2] = float("nan"), float("inf"), -float("inf")
    p = params(logprobs=None)
    batch = Batch.make(p, [0] * 4, None, None, None, size=4, seeds_must_agree=False)
    found, _ = sample_rows(kernels(), x.to(kernels().device), batch)
    assert (found["key"] != 0).tolist() == sample(x, p, positions=[0] * 4).valid.tolist()
    assert np.array_equal(found["key"] != 0, [False, False, False, True])


def test_the_best_tokens_are_listed_as_the_cpu_lists_them() -> None:
    """Rows ask for different numbers of them, for none, or are not valid."""
    x = logits(5, 300)
    x[3, 2], x[4, 20:] = float("nan"), -float("inf")
    asked = [params(logprobs=n) for n in (3, None, 0, 4, 40)]
    arguments = {
        "positions": list(range(5)),
        "draws": [0, 1, 0, 0, 0],
        "prompt_ids": None,
        "output_ids": None,
    }
    with launching("sample"):
        found = CudaSampler(kernels())(x.to(kernels().device), asked, **arguments)
    wanted = sample(x, asked, **arguments)
    for name in ("tokens", "valid", "top_ids"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    for name in ("logprobs", "top_logprobs"):
        ours, theirs = getattr(found, name), getattr(wanted, name)
        assert ours.numpy().tobytes() == theirs.numpy().tobytes(), name


def test_another_seed_is_another_token() -> None:
    """The negative control."""
    x = logits(1, 700).expand(8, -1).contiguous()
    tokens = []
    for seed in (1, 2):
        made = Batch.make(
            params(seed=seed), list(range(8)), None, None, None, size=8, seeds_must_agree=False
        )
        rows, _ = sample_rows(kernels(), x.to(kernels().device), made)
        tokens.append(rows["key"].tolist())
    assert tokens[0] != tokens[1]
