"""Against the brute-force oracle: the same token, counts, masses and bits, always."""

from __future__ import annotations

import math

import pytest
import torch
from bitlens import _core
from bitlens.model.sampling import SamplingParams, sample, sample_shards
from hypothesis import given
from hypothesis import strategies as st
from support.sampling_cases import cut, logits, params, row
from support.sampling_oracle import expected

LARGE = [8193, 49152, 131072, 262144]


@given(logits(), params(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_adversarial_rows(row_V: torch.Tensor, p: SamplingParams, position: int, draw: int) -> None:
    truth = expected(row_V, p, position, draw=draw)
    for isa in _core.available_isas():
        _core.set_isa(isa)
        for path in ("verify", "radix"):
            arguments = {"positions": [position], "draws": [draw], "return_certificate": True}
            found = sample(row_V[None], p, path=path, **arguments)
            assert str(row(found, 0)) == str(truth), (isa, path)
            without = sample(row_V[None], p, path=path, **arguments | {"return_certificate": False})
            assert without.tokens.tolist() == [truth.token], (isa, path)


@pytest.mark.parametrize("vocab", LARGE)
@pytest.mark.parametrize("kind", ["flat", "peaked", "heavy", "masked"])
def test_large_vocabularies(vocab: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(vocab)
    row_V = torch.randn(vocab, generator=generator)
    row_V *= {"flat": 0.0, "peaked": 8.0}.get(kind, 1.0)
    if kind == "heavy":
        row_V = -1.1 * torch.randperm(vocab, generator=generator).add(1).float().log()
    if kind == "masked":
        row_V[::2] = -1e12
        row_V[1::4] = torch.finfo(torch.float32).min
    row_V[-1] = -torch.inf
    p = SamplingParams(top_p=0.99, seed=vocab, logprobs=0)
    truth = expected(row_V, p, 17)
    for path in ("verify", "radix"):
        shards = cut(row_V[None], [1000, 0, 77, vocab])
        found = sample_shards(
            shards, p, positions=[17], path=path, return_certificate=True, vocab_size=vocab
        )
        assert row(found, 0) == truth


@given(st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=20), st.data())
def test_rows_that_are_not_numbers_touch_no_other(values: list[float], data: st.DataObject) -> None:
    bad = data.draw(st.sampled_from((math.nan, math.inf)))
    at = data.draw(st.integers(0, len(values) - 1))
    good = torch.tensor([values, values, values])
    broken = good.clone()
    broken[1, at] = bad
    p = SamplingParams(seed=3, top_p=0.9, logprobs=1)
    arguments = {"positions": [4, 5, 6], "return_certificate": True}
    expected_, found = (sample(x, p, **arguments) for x in (good, broken))
    assert found.valid.tolist() == [True, False, True]
    assert found.tokens[1] == -1
    assert found.certificate[1] is None
    for b in (0, 2):
        assert row(found, b) == row(expected_, b)


def test_nothing_finite_is_not_valid() -> None:
    found = sample(torch.full((2, 9), -torch.inf), SamplingParams(seed=0), positions=[0, 1])
    assert found.valid.tolist() == [False, False]


def test_half_precision_is_its_upcast() -> None:
    wide = torch.randn(3, 501) * 4
    p = SamplingParams(seed=5, top_p=0.95, temperature=0.7, logprobs=3)
    for dtype in (torch.bfloat16, torch.float16):
        half = wide.to(dtype)
        found, upcast = (
            sample(x, p, positions=[1, 2, 3], return_certificate=True) for x in (half, half.float())
        )
        assert [row(found, b) for b in range(3)] == [row(upcast, b) for b in range(3)]
        assert torch.equal(found.top_ids, upcast.top_ids)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 3},
        {"top_p": 0.9},
        {"min_p": 1.0},
        {"min_p": 0.3, "top_k": 5},
        {"min_p": 0.3, "top_k": 60, "top_p": 0.9},
    ],
)
def test_best_tokens_and_their_logprobs(options: dict[str, float]) -> None:
    x = torch.randn(4, 300)
    found = sample(x, SamplingParams(seed=1, logprobs=7, **options), positions=range(4))
    _, ids = x.sort(dim=1, descending=True)
    assert torch.equal(found.top_ids, ids[:, :7])
    truth = torch.log_softmax(x.double(), 1).gather(1, ids[:, :7])
    assert torch.allclose(found.top_logprobs.double(), truth, atol=1e-6)
