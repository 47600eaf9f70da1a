"""Ten failures of other samplers, each as a test (sources in docs/sampling.md)."""

from __future__ import annotations

import math

import pytest
import torch
from bitlens import _core
from bitlens.model.sampling import RankError, SamplingParams, sample, sample_shards
from support.sampling_oracle import score

ALL_ONES = 2**64 - 1


def _tokens(
    x: torch.Tensor, p: SamplingParams | list[SamplingParams], **options: object
) -> list[int]:
    options = {"positions": [9] * len(x)} | options
    tokens: list[int] = sample(x, p, **options).tokens.tolist()
    return tokens


def test_anthropic_postmortem_the_best_token_is_never_dropped() -> None:
    """Top logits one bf16 step apart, in different shards: the best is always a candidate."""
    x = torch.zeros(1, 4096)
    x[0, 3000], x[0, 70] = 20.0, float(torch.tensor(20.0).nextafter(torch.tensor(0.0)))
    for n in (1, 2, 8):
        for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0.0}):
            p = SamplingParams(seed=1, **options)
            assert sample_shards(list(x.tensor_split(n, 1)), p, positions=[0]).tokens[0] == 3000


@pytest.mark.parametrize("r", [0, 1, 2**32 - 1, 2**32, 2**63, ALL_ONES - 1, ALL_ONES])
def test_sglang_25106_extreme_random_words_stay_finite(r: int) -> None:
    """Random words all zero or all one must not win against everything."""
    found = _core.sampling_score(0.0, r)
    assert found == score(0.0, r)
    assert abs(found) <= 46 << 40
    # Beyond the support even the luckiest word loses nothing: such a token is no candidate.
    x = torch.zeros(1, 1300)
    x[0, 1208] = -60.0
    for seed in (7847, 0, ALL_ONES):
        assert _tokens(x, SamplingParams(seed=seed), positions=[12345]) != [1208]


def test_sglang_35697_batchmates_filters_do_not_matter() -> None:
    x = torch.randn(2, 500)
    mine = SamplingParams(seed=5)
    for other in (SamplingParams(seed=6), SamplingParams(seed=6, top_k=3, top_p=0.5)):
        assert _tokens(x, [mine, other])[0] == _tokens(x[:1], mine)[0]


def test_flashinfer_4861_every_row_has_its_own_seed() -> None:
    x = torch.zeros(4, 100_000)
    seeds = [1111, 2222, 3333, 4444]
    tokens = _tokens(x, [SamplingParams(seed=s) for s in seeds])
    assert len(set(tokens)) == 4
    assert tokens != _tokens(x, SamplingParams(seed=1111))
    back = _tokens(x, [SamplingParams(seed=s) for s in reversed(seeds)])
    assert back == tokens[::-1]


def test_flashinfer_3774_ties_do_not_exceed_top_k() -> None:
    x = torch.tensor([[0.4, 0.3, 0.3]]).log()
    p = SamplingParams(seed=1, top_k=2)
    found = {int(sample(x, p, positions=[i]).tokens[0]) for i in range(300)}
    assert found == {0, 1}


def test_vllm_50979_ties_are_the_same_at_batch_1_and_8() -> None:
    x = torch.randn(8, 1000).bfloat16()
    p = [SamplingParams(seed=s, top_k=20) for s in range(8)]
    together = sample(x, p, positions=range(8), return_certificate=True)
    for b in range(8):
        alone = sample(x[b : b + 1], p[b], positions=[b], return_certificate=True)
        assert alone.certificate == together.certificate[b : b + 1]
        assert alone.certificate[0].kept == 20


def test_vllm_metal_622_no_zero_probability_token_is_drawn() -> None:
    x = torch.full((2000, 64), -math.inf)
    x[:, 10], x[:, 40] = 0.0, -100.0
    tokens = _tokens(x, SamplingParams(seed=3), positions=range(2000))
    assert set(tokens) == {10}


def test_trtllm_12024_ranks_that_disagree_raise() -> None:
    """And ranks that agree get one token: every generator returns the same choice."""
    from bitlens.model.sampling.batch import Batch
    from bitlens.model.sampling.groups import LocalGroup
    from bitlens.model.sampling.rounds import Request, rank_rounds

    x = torch.randn(1, 64)

    def rank(start: int, seed: int) -> Request:
        batch = Batch.make(
            SamplingParams(seed=seed), [0], None, None, None, size=1, seeds_must_agree=True
        )
        return Request(x[:, start : start + 32], start, batch, None, "auto", False)

    agreeing = LocalGroup(2).run([rank_rounds(rank(0, 1)), rank_rounds(rank(32, 1))])
    assert agreeing[0].choices["key"] == agreeing[1].choices["key"]
    with pytest.raises(RankError, match="seeds"):
        LocalGroup(2).run([rank_rounds(rank(0, 1)), rank_rounds(rank(32, 2))])


def test_vllm_34854_noise_reaches_rare_tokens() -> None:
    """64-bit uniforms: noise goes beyond the 21.5 at which 31 bits end."""
    assert _core.sampling_score(0.0, 0) > 44 << 40
    assert _core.sampling_score(0.0, ALL_ONES) < -3 << 40


@pytest.mark.parametrize("vocab", [8193, 5])
def test_vllm_44744_padding_never_wins(vocab: int) -> None:
    """All real logits negative, padding 0 or garbage: ids beyond the vocabulary are not chosen."""
    x = torch.full((1, vocab + 127), -50.0)
    for padding in (0.0, 1e9, math.nan):
        x[:, vocab:] = padding
        for n in (1, 4):
            shards = list(x.tensor_split(n, 1))
            for options in ({"temperature": 0.0}, {"top_k": 9}, {"top_p": 0.9}, {}):
                p = SamplingParams(seed=1, **options)
                token = sample_shards(shards, p, positions=[0], vocab_size=vocab).tokens[0]
                assert 0 <= token < vocab
