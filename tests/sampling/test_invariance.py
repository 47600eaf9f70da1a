"""Token, certificate and log-probabilities do not feel shards, batch, threads, ISA or path."""

from __future__ import annotations

import bitlens
import pytest
import torch
from bitlens import _core
from bitlens.model.sampling import SamplingParams, sample, sample_shards
from hypothesis import given
from hypothesis import strategies as st
from support.sampling_cases import bits, cut, logits, params, row

SHARDS = [1, 2, 3, 4, 7, 8, 16]
VOCAB = 3001
MIXTURE = [
    SamplingParams(seed=1, top_k=50, top_p=0.95, logprobs=0),
    SamplingParams(seed=2, top_p=0.99, logprobs=3),
    SamplingParams(seed=3, logprobs=0),
    SamplingParams(seed=4, top_k=1500, top_p=0.9, logprobs=0),
    SamplingParams(seed=5, top_k=1500, top_p=0.9, filter_apply_order="joint", logprobs=0),
    SamplingParams(temperature=0, logprobs=0),
    SamplingParams(seed=6, min_p=0.05, temperature=1.3, logprobs=0),
    SamplingParams(seed=7, top_p=0.3, logit_bias={5: 2.0, 2999: 9.0}, logprobs=0),
    SamplingParams(seed=8, typical_p=0.4, logprobs=0),
    SamplingParams(seed=9, typical_p=0.7, top_k=40, min_p=0.01, logprobs=0),
    SamplingParams(seed=10, typical_p=0.8, top_p=0.9, top_k=1500, logprobs=0),
]
ROWS = len(MIXTURE)


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    x = torch.randn(64, VOCAB, generator=torch.Generator().manual_seed(1)) * 2
    x[::3] = (x[::3] * 4).round() / 4  # ties
    return x


def _params(rows: list[int]) -> list[SamplingParams]:
    return [MIXTURE[i % len(MIXTURE)] for i in rows]


@pytest.mark.parametrize("n", SHARDS)
@pytest.mark.parametrize("path", ["verify", "radix"])
def test_shards_even_uneven_and_empty(batch: torch.Tensor, n: int, path: str) -> None:
    x, p = batch[:ROWS], _params(list(range(ROWS)))
    whole = bits(sample(x, p, positions=range(ROWS), return_certificate=True))
    uneven = [0 if i % 3 == 1 else 13 * i + 1 for i in range(n)]
    for shards in (list(x.tensor_split(n, 1)), cut(x, uneven)):
        found = sample_shards(shards, p, positions=range(ROWS), path=path, return_certificate=True)
        assert bits(found) == whole


def test_batch_order_threads_and_instruction_set(batch: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(5)
    everything = list(range(64))
    whole = sample(batch, _params(everything), positions=everything, return_certificate=True)
    for size in (1, 2, 17, 63):
        order = torch.randperm(64, generator=generator)[:size].tolist()
        for threads, isa in ((1, "generic"), (2, _core.available_isas()[-1])):
            bitlens.set_num_threads(threads)
            _core.set_isa(isa)
            found = sample(batch[order], _params(order), positions=order, return_certificate=True)
            assert [row(found, i) for i in range(size)] == [row(whole, b) for b in order]


def test_strides_change_nothing(batch: torch.Tensor) -> None:
    x, p = batch[:ROWS], _params(list(range(ROWS)))
    whole = bits(sample(x, p, positions=range(ROWS)))
    padded = torch.full((ROWS, VOCAB + 9), torch.nan)
    padded[:, :VOCAB] = x
    assert bits(sample(padded[:, :VOCAB], p, positions=range(ROWS))) == whole
    assert bits(sample(x.t().contiguous().t(), p, positions=range(ROWS))) == whole
    assert bits(sample(padded, p, positions=range(ROWS), vocab_size=VOCAB)) == whole


@given(logits(max_vocab=60), st.lists(params(), min_size=2, max_size=2), st.data())
def test_any_cut_any_mixture(
    row_V: torch.Tensor, mixture: list[SamplingParams], data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=16))
    x = torch.stack([row_V, row_V.flip(0)])
    whole = bits(sample(x, mixture, positions=[3, 4], return_certificate=True))
    for path in ("verify", "radix"):
        found = sample_shards(
            cut(x, sizes), mixture, positions=[3, 4], path=path, return_certificate=True
        )
        assert bits(found) == whole


def test_shards_may_come_in_any_order(batch: torch.Tensor) -> None:
    x, p = batch[:ROWS], _params(list(range(ROWS)))
    parts = list(x.split([1000, 1, 2000], dim=1))
    whole = bits(sample(x, p, positions=range(ROWS), return_certificate=True))
    found = sample_shards(
        [parts[2], parts[0], parts[1]], p, positions=range(ROWS), vocab_starts=[1001, 0, 1000],
        return_certificate=True, path="radix",
    )  # fmt: skip
    assert bits(found) == whole


def test_flush_to_zero_changes_nothing(batch: torch.Tensor) -> None:
    x, p = batch[:ROWS] * 1e-38, _params(list(range(ROWS)))
    whole = bits(sample(x, p, positions=range(ROWS), return_certificate=True))
    torch.set_flush_denormal(True)
    assert bits(sample(x, p, positions=range(ROWS), return_certificate=True)) == whole
