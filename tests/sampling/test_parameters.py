"""Masks, bias and penalties against the oracle, and arguments that are refused by name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from bitlens.model.sampling import (
    LocalGroup,
    RankError,
    SamplingParams,
    sample,
    sample_shards,
)
from hypothesis import given
from hypothesis import strategies as st
from support.sampling_cases import logits, row
from support.sampling_oracle import expected

ids = st.lists(st.integers(0, 45), max_size=6)
penalty = st.sampled_from((-1.5, 0.0, 0.1, 0.7))


@given(
    logits(),
    st.fixed_dictionaries(
        {
            "repetition_penalty": st.sampled_from((1.0, 0.8, 1.3)),
            "frequency_penalty": penalty,
            "presence_penalty": penalty,
            "logit_bias": st.dictionaries(st.integers(0, 45), st.floats(-9, 9, width=32)),
            "allowed_token_ids": st.one_of(st.none(), ids),
            "min_tokens": st.integers(0, 4),
            "stop_token_ids": st.lists(st.integers(0, 45), min_size=1, max_size=3),
            "temperature": st.sampled_from((0.5, 1.0)),
        }
    ),
    ids,
    ids,
)
def test_edits(
    row_V: torch.Tensor, options: dict[str, Any], prompt: list[int], output: list[int]
) -> None:
    p = SamplingParams(seed=1, top_p=0.9, logprobs=0, **options)
    truth = expected(row_V, p, 8, prompt=prompt, output=output)
    history = {"prompt_ids": [prompt], "output_ids": [output]}
    for shards in (1, 3):
        found = sample_shards(
            list(row_V[None].tensor_split(shards, 1)), p, positions=[8], return_certificate=True,
            **history,
        )  # fmt: skip
        assert str(row(found, 0)) == str(truth)


def test_edits_leave_the_callers_logits_alone() -> None:
    x = torch.randn(2, 30)
    before = x.clone()
    sample(x, SamplingParams(seed=1, logit_bias={3: 1.0}, temperature=0.5), positions=[0, 1])
    assert torch.equal(x, before)


@pytest.mark.parametrize("off", [None, 0, -1, 30, 31])
def test_every_way_to_say_no_top_k(off: int | None) -> None:
    x, positions = torch.randn(5, 30), range(5)
    plain = sample(x, SamplingParams(seed=1), positions=positions, return_certificate=True)
    found = sample(
        x, SamplingParams(seed=1, top_k=off), positions=positions, return_certificate=True
    )
    assert found.certificate == plain.certificate
    assert torch.equal(found.tokens, plain.tokens)


def test_seed_position_and_draw_all_count() -> None:
    x = torch.zeros(1, 10**6)

    def token(seed: int, position: int, draw: int) -> int:
        p = SamplingParams(seed=seed)
        return int(sample(x, p, positions=[position], draws=[draw]).tokens[0])

    assert len({token(1, 2, 3), token(9, 2, 3), token(1, 9, 3), token(1, 2, 9)}) == 4
    assert token(1, 2, 3) == token(1, 2, 3)


def test_no_seed_is_fresh_and_shared_by_shards() -> None:
    x = torch.zeros(2, 100_000)
    tokens = [sample(x, SamplingParams(), positions=[0, 0]).tokens.tolist() for _ in range(2)]
    assert len({*tokens[0], *tokens[1]}) == 4
    assert sample_shards(list(x.tensor_split(3, 1)), SamplingParams(), positions=[0, 0]).valid.all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", 1e39),
        ("top_k", -2),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
        ("typical_p", 0.0),
        ("typical_p", 1.5),
        ("min_p", -0.1),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("frequency_penalty", float("inf")),
        ("presence_penalty", float("nan")),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: float("nan")}),
        ("allowed_token_ids", [-3]),
        ("min_tokens", -1),
        ("min_tokens", 2),
        ("logprobs", -1),
        ("seed", 2**64),
        ("filter_apply_order", "top_p_first"),
    ],
)
def test_values_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} = "):
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": [0]}, "positions"),
        ({"positions": [0.5, 1.5]}, "positions"),
        ({"positions": [0, 2**32]}, "positions"),
        ({"draws": [0, -1]}, "draws"),
        ({"params": [SamplingParams()]}, "params: 1"),
        ({"params": SamplingParams(presence_penalty=1.0)}, "output_ids"),
        ({"params": SamplingParams(repetition_penalty=2.0), "output_ids": [[], []]}, "prompt_ids"),
        ({"output_ids": [[]]}, "output_ids"),
        ({"logits": torch.zeros(2, 5, dtype=torch.float64)}, "float64"),
        ({"logits": torch.zeros(5)}, "logits"),
        ({"path": "fast"}, "path"),
        ({"vocab_start": -1}, "vocab_start"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    good = {"logits": torch.zeros(2, 5), "params": SamplingParams(), "positions": [0, 1]}
    with pytest.raises(ValueError, match=re.escape(message)):
        sample(**(good | arguments))


@pytest.mark.parametrize(
    ("sizes", "starts", "vocab", "message"),
    [
        ([3, 3], [0, 2], None, "held twice"),
        ([3, 3], [0, 4], None, "missing"),
        ([3, 3], [1, 4], None, "missing"),
        ([3, 3], [0, 0], None, "held twice"),
        ([3, 3], [0, 3], 7, "vocab_size"),
        ([2**20], [0], None, "2^20"),
        ([0], [0], None, "vocab_size"),
    ],
)
def test_slices_must_tile(
    sizes: list[int], starts: list[int], vocab: int | None, message: str
) -> None:
    shards = [torch.zeros(1, n) for n in sizes]
    with pytest.raises(RankError, match=re.escape(message)):
        sample_shards(
            shards, SamplingParams(seed=1), positions=[0], vocab_starts=starts, vocab_size=vocab
        )


def test_groups_know_their_size() -> None:
    with pytest.raises(ValueError, match="3 ranks for 1"):
        sample_shards(
            [torch.zeros(1, 4)], SamplingParams(seed=1), positions=[0], group=LocalGroup(3)
        )
    with pytest.raises(ValueError, match="size = 0"):
        LocalGroup(0)


def test_an_empty_batch_is_an_empty_result() -> None:
    found = sample(torch.zeros(0, 7), SamplingParams(seed=1), positions=[])
    assert found.tokens.shape == (0,)
