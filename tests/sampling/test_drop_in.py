"""FlashInfer's and vLLM's calls with their arguments, as their own public tests make them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bitlens.model.sampling import (
    Noise,
    SamplingParams,
    flashinfer,
    sample,
    sampling_from_logits,
    vllm,
)

V = 997


def _probs(rows: int = 6, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    probs = torch.rand(rows, V, generator=g)
    return probs / probs.sum(dim=-1, keepdim=True)


CALLS: dict[str, tuple[Any, ...]] = {
    "sampling_from_probs": (),
    "sampling_from_logits": (),
    "top_p_sampling_from_probs": (0.1,),
    "top_k_sampling_from_probs": (10,),
    "min_p_sampling_from_probs": (0.5,),
    "top_k_top_p_sampling_from_probs": (10, 0.3),
    "top_k_top_p_sampling_from_logits": (10, 0.3),
}


@pytest.mark.parametrize("name", CALLS)
def test_generators_and_determinism(name: str) -> None:
    """The same generator state gives the same tokens, the next call others; indices share rows."""
    call, x = getattr(flashinfer, name), _probs()
    state = torch.Generator().manual_seed(42)
    first = call(x, *CALLS[name], deterministic=True, generator=state)
    second = call(x, *CALLS[name], deterministic=False, generator=state)
    again = call(x, *CALLS[name], generator=torch.Generator().manual_seed(42))
    assert first.dtype == torch.int32
    assert torch.equal(first, again)
    assert bool((first < V).all())
    assert bool((first >= 0).all())
    assert not torch.equal(first, second)
    shared = torch.tensor([3, 3, 3, 3, 0, 3], dtype=torch.int32)
    drawn = call(x, *CALLS[name], indices=shared, generator=torch.Generator().manual_seed(1))
    plain = call(x[shared.long()], *CALLS[name], generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, plain)
    assert drawn.shape == shared.shape


@pytest.mark.parametrize("name", CALLS)
def test_seed_and_offset_and_nan(name: str) -> None:
    call, x = getattr(flashinfer, name), _probs()
    one = call(x, *CALLS[name], seed=7, offset=100)
    assert torch.equal(one, call(x, *CALLS[name], seed=7, offset=100))
    assert not torch.equal(one, call(x, *CALLS[name], seed=7, offset=200))
    x[2, 5] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        call(x, *CALLS[name], check_nan=True)
    assert int(call(x, *CALLS[name])[2]) == -1


@pytest.mark.parametrize("k", [1, 10, 500])
def test_top_k_stays_within_the_mask(k: int) -> None:
    """flashinfer's test_top_k_sampling: no token outside of the k best, in many rounds."""
    x = _probs(3)
    pivot = x.sort(descending=True).values[:, k - 1]
    mask = x >= pivot[:, None]
    for _ in range(40):
        drawn = flashinfer.top_k_sampling_from_probs(x, k)
        assert bool(mask.gather(1, drawn[:, None].long()).all())


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_top_p_stays_within_the_nucleus(p: float) -> None:
    x = _probs(3)
    ordered, ids = x.sort(descending=True)
    nucleus = torch.zeros_like(x, dtype=torch.bool)
    nucleus.scatter_(1, ids, ordered.double().cumsum(1) - ordered < p)
    for _ in range(40):
        drawn = flashinfer.top_p_sampling_from_probs(x, p)
        assert bool(nucleus.gather(1, drawn[:, None].long()).all())


@pytest.mark.parametrize(
    "value",
    [
        0.3, np.float32(0.3), np.float64(0.3), np.array(0.3), np.full(6, 0.3), [0.3] * 6,
        torch.tensor(0.3), torch.full((6,), 0.3), torch.full((6,), 0.3, dtype=torch.float64),
    ],
)  # fmt: skip
def test_numbers_of_every_kind(value: Any) -> None:
    """fp32 0.3 and fp64 0.3 keep the same tokens here."""
    x = _probs()
    expected = flashinfer.top_p_sampling_from_probs(x, 0.3, seed=3)
    assert torch.equal(flashinfer.top_p_sampling_from_probs(x, value, seed=3), expected)
    k = np.int64(9)
    by_row = flashinfer.top_k_sampling_from_probs(x, torch.full((6,), 9, dtype=torch.int32), seed=3)
    assert torch.equal(flashinfer.top_k_sampling_from_probs(x, k, seed=3), by_row)
    with pytest.raises(ValueError, match="expected a number or 6"):
        flashinfer.top_p_sampling_from_probs(x, torch.full((5,), 0.3))


def test_edges() -> None:
    x = _probs(4)
    best = x.argmax(1)
    assert torch.equal(flashinfer.top_p_sampling_from_probs(x, 0.0).long(), best)
    renormed = flashinfer.top_p_renorm_probs(x, 0.0)
    assert torch.equal(renormed, torch.nn.functional.one_hot(best, V).float())
    logits = torch.tensor([[1.0, 3.0, 3.0], [0.0, 1.0, 2.0]])
    cold = flashinfer.softmax(logits, torch.tensor([0.0, 1.0]))
    assert cold[0].tolist() == [0.0, 1.0, 0.0]
    assert torch.equal(cold[1:], flashinfer.softmax(logits[1:]))
    zeros = torch.cat([torch.zeros(1, V), x[:1]])
    drawn = flashinfer.sampling_from_probs(zeros)
    assert drawn[0] == -1
    assert drawn[1] >= 0
    assert flashinfer.sampling_from_probs(torch.zeros(0, V)).shape == (0,)
    for call in (
        flashinfer.softmax,
        flashinfer.sampling_from_probs,
        flashinfer.sampling_from_logits,
    ):
        with pytest.raises(ValueError, match="vocabulary"):
            call(torch.zeros(2, 0))
    for call in (flashinfer.top_k_mask_logits, flashinfer.top_p_renorm_probs):
        with pytest.raises(ValueError, match="vocabulary"):
            call(torch.zeros(2, 0), 1)


def test_rows_do_not_share_noise() -> None:
    """flashinfer#4861: equal rows of one call draw apart, and as often as their probabilities."""
    rows = torch.tensor([[0.5, 0.5]]).expand(4000, -1)
    drawn = flashinfer.sampling_from_probs(rows, generator=torch.Generator().manual_seed(0))
    assert abs(float(drawn.float().mean()) - 0.5) < 4 * 0.5 / 4000**0.5


def test_what_it_is_made_of() -> None:
    x = torch.randn(5, V, generator=torch.Generator().manual_seed(1))
    theirs = flashinfer.sampling_from_logits(x, seed=9, offset=4)
    ours = sampling_from_logits(x, Noise(seed=9, positions=range(4, 9))).tokens
    assert torch.equal(theirs.long(), ours)
    params = [SamplingParams(seed=9, top_k=1)] * 5
    greedy = flashinfer.top_k_top_p_sampling_from_logits(x, 50, 0.0)
    assert torch.equal(greedy.long(), sample(x, params, positions=range(5)).tokens)


def test_vllms_operations() -> None:
    x = torch.randn(4, V, generator=torch.Generator().manual_seed(2))
    k, p = torch.tensor([1, 5, V, 20]), torch.tensor([1.0, 1.0, 0.5, 0.5])
    masked = vllm.apply_top_k_top_p(x, k, p)
    kept = masked.isfinite()
    assert kept.sum(1)[:2].tolist() == [1, 5]
    assert torch.equal(masked[kept], x[kept])
    probs = x.softmax(1)
    for row in (2, 3):
        ordered = probs[row].sort(descending=True).values[: int(k[row])].double()
        ordered = ordered / ordered.sum()
        assert int(kept[row].sum()) == int((ordered.cumsum(0) - ordered < 0.5).sum())
    assert torch.equal(vllm.apply_top_k_top_p(x, None, None), x)

    def drawn(**seeds: int) -> torch.Tensor:
        generators = {int(row): torch.Generator().manual_seed(s) for row, s in seeds.items()}
        return vllm.random_sample(probs, generators)

    every = {"0": 5, "1": 6, "2": 7, "3": 8}
    assert torch.equal(drawn(**every), drawn(**every))
    assert torch.equal(drawn(**every)[1:], drawn(**{**every, "0": 99})[1:])
