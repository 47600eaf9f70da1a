"""Scores of continuations have the forward pass's bits, however they are batched and cached."""

from __future__ import annotations

import math
from collections.abc import Sequence

import bitlens
import pytest
import torch
from bitlens.audit.harness import Continuation, ContinuationScore, ContinuationScorer
from bitlens.audit.harness.continuations import PASS_TOKENS
from bitlens.model.cache.prefix_cache import PrefixCache, kept_page_bytes
from bitlens.model.gradients.token_logprob import token_logprob
from bitlens.model.transformer import HookedTransformer
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_llama import write_tiny_llama

N_VOCAB = 97
ids = st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    return bitlens.load(write_tiny_llama(tmp_path_factory.mktemp("tiny")))


def cache(model: HookedTransformer, pages: int = 64) -> PrefixCache:
    return PrefixCache(model, pages * kept_page_bytes(model))


def score(
    model: HookedTransformer, items: Sequence[Continuation], *, batch_size: int, pages: int = 64
) -> list[ContinuationScore]:
    return ContinuationScorer(model, cache(model, pages), batch_size).score(items)


def of_the_forward_pass(model: HookedTransformer, each: Continuation) -> list[float]:
    """One pass over the sequence alone, without a cache."""
    tokens = torch.tensor([[*each.context, *each.tokens]])
    first = len(each.context) - 1
    logits_PV = model(tokens)[0, first:-1]
    return token_logprob(logits_PV, tokens[0, first + 1 :]).tolist()


def bits(logprobs: Sequence[float]) -> list[int]:
    return torch.tensor(logprobs).view(torch.int32).tolist()


@st.composite
def continuations(draw: st.DrawFn) -> list[Continuation]:
    """Some that share contexts, or begin alike, as examples before a question do."""
    shared = draw(ids)
    contexts = draw(st.lists(ids.map(lambda own: (shared + own)[:60]), min_size=1, max_size=4))
    pairs = st.tuples(st.sampled_from([shared, *contexts]), ids.map(lambda own: own[:30]))
    return [Continuation(*pair) for pair in draw(st.lists(pairs, min_size=1, max_size=8))]


@given(items=continuations(), batch_size=st.integers(1, 5), pages=st.integers(3, 20))
def test_scores_have_the_bits_of_the_forward_pass(
    model: HookedTransformer, items: list[Continuation], batch_size: int, pages: int
) -> None:
    found = score(model, items, batch_size=batch_size, pages=pages)
    for each, item in zip(found, items, strict=True):
        assert bits(each.logprobs) == bits(of_the_forward_pass(model, item))
        assert each.total == math.fsum(each.logprobs)


def test_a_context_that_differs_in_its_first_token_is_told_apart(model: HookedTransformer) -> None:
    """The control: the comparison of bits sees it, and so does the cache."""
    items = [Continuation([first, *range(20)], [5, 6]) for first in (1, 2)]
    a, b = score(model, items, batch_size=2)
    assert bits(a.logprobs) != bits(b.logprobs)


def test_they_are_those_of_logprobs(model: HookedTransformer) -> None:
    item = Continuation(range(30), [3, 1, 4, 1, 5])
    (found,) = score(model, [item], batch_size=1)
    tokens = torch.tensor([[*item.context, *item.tokens]])
    assert bits(found.logprobs) == bits(model.logprobs(tokens)[0, -5:].tolist())


def test_what_generate_writes_is_greedy_and_nothing_else(model: HookedTransformer) -> None:
    context = list(range(12))
    written = model.generate(context, max_new_tokens=6).tokens[0, 12:].tolist()
    others = [*written[:-1], (written[-1] + 1) % N_VOCAB]
    items = [Continuation(context, tokens) for tokens in (written, others)]
    assert [each.is_greedy for each in score(model, items, batch_size=2)] == [True, False]


def test_a_shared_context_is_read_once(model: HookedTransformer) -> None:
    kept = cache(model)
    scorer = ContinuationScorer(model, kept, 4)
    context = [*range(60)]
    scorer.score([Continuation(context, [token]) for token in range(12)])
    # Each continuation finds all of the context but its last token, which gives the logits; the
    # context itself is looked up once a batch, and found from the second on.
    assert kept.stats().hit_tokens == (12 + 2) * 59
    assert kept.stats().pages_referenced == 0


def test_long_continuations_are_scored_in_parts(model: HookedTransformer) -> None:
    """More columns than a pass has for each row."""
    items = [Continuation([i % N_VOCAB], [(i + j) % N_VOCAB for j in range(90)]) for i in range(40)]
    assert PASS_TOKENS // len(items) < 90
    for each, item in zip(score(model, items, batch_size=40, pages=200), items, strict=True):
        assert bits(each.logprobs) == bits(of_the_forward_pass(model, item))


def test_hooks_count_and_nothing_of_their_passes_is_kept(model: HookedTransformer) -> None:
    kept, item = cache(model), Continuation(range(30), [7, 8])
    scorer = ContinuationScorer(model, kept, 2)
    (plain,) = scorer.score([item])
    with model.hooks([("blocks.0.hook_mlp_out", lambda x, hook: x * 0.5)]):
        (edited,) = scorer.score([item])
        expected = of_the_forward_pass(model, item)
    assert bits(edited.logprobs) == bits(expected)
    assert bits(edited.logprobs) != bits(plain.logprobs)
    assert bits(scorer.score([item])[0].logprobs) == bits(plain.logprobs)


def test_done_counts_what_was_scored(model: HookedTransformer) -> None:
    counts: list[int] = []
    items = [Continuation([i], [i]) for i in range(7)]
    ContinuationScorer(model, cache(model), 3).score(items, done=counts.append)
    assert counts == [3, 3, 1]


@pytest.mark.parametrize("item", [Continuation([], [1]), Continuation([1], [])])
def test_nothing_to_score_or_to_score_after_is_refused(
    model: HookedTransformer, item: Continuation
) -> None:
    with pytest.raises(ValueError, match="expected at least one of each"):
        score(model, [item], batch_size=1)


def test_what_the_cache_has_no_room_for_is_refused(model: HookedTransformer) -> None:
    with pytest.raises(ValueError, match="need 3 pages, the cache has 2: give it more cache_bytes"):
        score(model, [Continuation(range(80), [1])], batch_size=1, pages=2)


def test_logits_that_are_no_numbers_are_refused(model: HookedTransformer) -> None:
    with (
        model.hooks([("blocks.0.hook_mlp_out", lambda x, hook: x * math.nan)]),
        pytest.raises(ValueError, match="no numbers"),
    ):
        score(model, [Continuation([1, 2], [3])], batch_size=1)


def test_an_empty_batch_is_refused(model: HookedTransformer) -> None:
    with pytest.raises(ValueError, match="batch_size = 0"):
        ContinuationScorer(model, cache(model), 0)
