"""Lists of best tokens against a sort of all tokens."""

from __future__ import annotations

import torch
from bitlens.audit.platforms.top_k import wrong_top_k
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4))
def test_against_a_stable_sort(seed: int, k: int, values: int) -> None:
    """With few values there are ties, which go to the smaller id."""
    draws = torch.Generator().manual_seed(seed)
    logits_PV = torch.randint(0, values, (12, 9), generator=draws).float()
    order_PV = logits_PV.sort(dim=1, descending=True, stable=True).indices
    assert not wrong_top_k(logits_PV, order_PV[:, :k]).any()
    shuffled_PK = torch.stack([torch.randperm(9, generator=draws)[:k] for _ in range(12)])
    expected = (shuffled_PK != order_PV[:, :k]).any(1)
    assert torch.equal(wrong_top_k(logits_PV, shuffled_PK), expected)


def test_a_token_that_is_listed_twice() -> None:
    assert wrong_top_k(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0, 0]])).tolist() == [True]
