"""Locally typical sampling: the oracle at size, Hugging Face's filter, and the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bitlens.model.sampling import LocalGroup, SamplingParams, sample, sample_shards
from hypothesis import given
from hypothesis import strategies as st
from support.sampling_cases import cut, row
from support.sampling_frequencies import assert_fits, frequencies
from support.sampling_oracle import expected
from transformers import TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper

CERTIFIED = {"positions": [17], "return_certificate": True}


def heavy(vocab: int) -> torch.Tensor:
    """Zipf's law in random order [V]."""
    ranks = torch.randperm(vocab, generator=torch.Generator().manual_seed(vocab))
    return -1.1 * ranks.add(1).float().log()


def kept_ids(row_V: torch.Tensor, p: SamplingParams) -> set[int]:
    """What the certificate says is kept."""
    found = sample(row_V[None], p, **CERTIFIED)
    (certificate,) = found.certificate
    ids_V, last = torch.arange(len(row_V)), certificate.threshold_logit
    within_V = (row_V > last) | ((row_V == last) & (ids_V <= certificate.threshold_id))
    within_V &= certificate.typical.holds(row_V, certificate.x_max)
    kept = set(ids_V[within_V].tolist())
    assert len(kept) == certificate.kept
    assert int(found.tokens[0]) in kept
    return kept


@pytest.mark.parametrize("vocab", [8193, 131072])
@pytest.mark.parametrize("kind", ["flat", "peaked", "heavy"])
@pytest.mark.parametrize("options", [{"typical_p": 0.9}, {"typical_p": 0.2, "top_p": 0.9}])
def test_large_vocabularies(vocab: int, kind: str, options: dict[str, float]) -> None:
    row_V = heavy(vocab)
    if kind != "heavy":
        row_V = torch.randn(vocab, generator=torch.Generator().manual_seed(vocab))
        row_V *= 8.0 if kind == "peaked" else 0.0
    p = SamplingParams(seed=vocab, logprobs=0, **options)
    truth = expected(row_V, p, 17)
    shards = cut(row_V[None], [1000, 0, 77, vocab])
    for path in ("verify", "radix"):
        assert row(sample_shards(shards, p, path=path, **CERTIFIED), 0) == truth
        uncertified = sample_shards(shards, p, positions=[17], path=path)
        assert uncertified.tokens.tolist() == [truth.token]


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=30),
    st.sampled_from((0.05, 0.3, 0.5, 0.9, 0.999)),
)
def test_ties_on_both_sides_of_the_entropy(steps: list[int], typical_p: float) -> None:
    """Logits on a grid of ln 2 / 4: surprisals lie as far above the entropy as others below."""
    row_V = torch.tensor(steps, dtype=torch.float32) * 0.25
    p = SamplingParams(seed=3, typical_p=typical_p, logprobs=0)
    truth = expected(row_V, p, 17)
    for sizes in ([40], [3, 0, 5, 40]):
        for path in ("verify", "radix"):
            found = sample_shards(cut(row_V[None], sizes), p, path=path, **CERTIFIED)
            assert str(row(found, 0)) == str(truth)


@pytest.mark.parametrize("typical_p", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(4))
def test_hugging_face_keeps_the_same(typical_p: float, seed: int) -> None:
    """Its order of filters: top-k, top-p, then typical."""
    row_V = torch.randn(600, generator=torch.Generator().manual_seed(seed)) * 3
    warpers = [TypicalLogitsWarper(mass=typical_p)]
    for options, more in (
        ({}, []),
        ({"top_k": 50}, [TopKLogitsWarper(50)]),
        ({"top_k": 80, "top_p": 0.9}, [TopKLogitsWarper(80), TopPLogitsWarper(0.9)]),
    ):
        scores = row_V[None].double()
        for warper in [*more, *warpers]:
            scores = warper(None, scores)
        theirs = set(torch.isfinite(scores[0]).nonzero()[:, 0].tolist())
        assert kept_ids(row_V, SamplingParams(seed=1, typical_p=typical_p, **options)) == theirs


def test_listed_and_descended_tokens_agree() -> None:
    """A small top_k is decided from lists, an equal mask by ranks together."""
    row_V = heavy(3000)
    best = row_V.topk(200).indices.tolist()
    for typical_p in (0.1, 0.6, 0.99):
        listed = SamplingParams(seed=5, typical_p=typical_p, top_k=200)
        masked = SamplingParams(seed=5, typical_p=typical_p, allowed_token_ids=best)
        for p in (listed, masked):
            found = sample_shards(list(row_V[None].tensor_split(4, 1)), p, **CERTIFIED)
            (certificate,) = found.certificate
            answer = (certificate.typical, certificate.kept, certificate.rank, certificate.mass)
            if p is listed:
                truth = (int(found.tokens[0]), answer)
        assert (int(found.tokens[0]), answer) == truth


def test_the_definition() -> None:
    """The smallest set nearest to the entropy that holds the share, in fp64 where none ties."""
    row_V = torch.randn(500, generator=torch.Generator().manual_seed(8)) * 2
    log_p = torch.log_softmax(row_V.double(), 0)
    entropy = -(log_p.exp() * log_p).sum()
    order = (-log_p - entropy).abs().argsort()
    mass = log_p.exp()[order].cumsum(0)
    for typical_p in (0.05, 0.5, 0.9):
        size = int((mass < float(np.float32(typical_p))).sum()) + 1
        kept = kept_ids(row_V, SamplingParams(seed=1, typical_p=typical_p))
        assert kept == set(order[:size].tolist())


def test_the_best_token_may_be_untypical() -> None:
    """0.2 and 80 tokens of 0.01: the entropy is near ln 100, where the small ones are."""
    row_V = torch.log(torch.tensor([0.2] + [0.01] * 80))
    p = SamplingParams(seed=1, typical_p=0.495)
    assert 0 not in kept_ids(row_V, p)
    tokens = sample(row_V.expand(500, -1), p, positions=range(500)).tokens
    assert set(tokens.tolist()) == set(range(1, 51))


def test_draws_are_renormalised() -> None:
    row_V = torch.linspace(0, -6, 48)
    p = SamplingParams(seed=21, typical_p=0.6)
    kept = sorted(kept_ids(row_V, p))
    probability = np.zeros(len(row_V))
    probability[kept] = torch.softmax(row_V.double()[kept], 0).numpy()
    assert_fits(frequencies(row_V, p, 40_000), probability)


def test_off_and_greedy() -> None:
    x = torch.randn(3, 400)
    plain = sample(x, SamplingParams(seed=1), positions=range(3), return_certificate=True)
    off = SamplingParams(seed=1, typical_p=1.0)
    assert (
        sample(x, off, positions=range(3), return_certificate=True).certificate == plain.certificate
    )
    greedy = SamplingParams(temperature=0, typical_p=0.1)
    assert torch.equal(sample(x, greedy, positions=range(3)).tokens, x.argmax(1))


def test_a_rank_receives_little() -> None:
    """Heavy tails at V = 131072 over 8 shards: a candidate is typical nearly always."""
    row_V = heavy(131072)[None]
    received = []
    for position in range(12):
        group = LocalGroup(8)
        p = SamplingParams(seed=1, typical_p=0.9)
        sample_shards(list(row_V.tensor_split(8, 1)), p, positions=[position], group=group)
        received.append(max(group.bytes_received))
    assert sum(received) / len(received) < 4096
