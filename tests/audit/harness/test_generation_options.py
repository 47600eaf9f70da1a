"""An option of lm-evaluation-harness reaches the request, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from bitlens.audit.harness import sample_seed
from bitlens.audit.harness.generation_options import request_options
from bitlens.model.serving import Request
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("asked", "temperature"),
    [
        ({}, 0.0),
        ({"temperature": 0.7}, 0.7),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.7}, 0.7),
        ({"do_sample": False, "temperature": 0.7}, 0.0),
    ],
)
def test_the_temperature_is_transformers(asked: dict[str, Any], temperature: float) -> None:
    assert request_options(asked, 256)["temperature"] == temperature


def test_stops_are_one_string_or_several() -> None:
    assert request_options({"until": "\n"}, 256)["stop"] == ["\n"]
    assert request_options({"until": ["a", "b"]}, 256)["stop"] == ["a", "b"]
    assert request_options({"until": None}, 256)["stop"] == []


def test_of_several_lengths_the_harnesss_own_counts() -> None:
    assert request_options({}, 256)["max_new_tokens"] == 256
    assert request_options({"max_tokens": 5, "max_gen_toks": "4"}, 256)["max_new_tokens"] == 4


def test_every_option_is_a_field_of_a_request() -> None:
    asked = {"top_k": 5, "top_p": 0.9, "min_p": None, "repetition_penalty": 1.1, "seed": 3}
    request = Request([1], **request_options(asked, 8))
    assert (request.top_k, request.top_p, request.repetition_penalty) == (5, 0.9, 1.1)
    assert request.min_p is None
    assert request.seed is None  # of the whole evaluation: a sample's hangs on its ids, too


def test_what_no_request_has_a_word_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gen_kwargs: beams, num_beams cannot .* known are until"):
        request_options({"num_beams": 2, "beams": 1, "top_k": 1}, 8)


names = st.one_of(st.none(), st.integers(0, 9), st.text(max_size=3))
identities = st.lists(names, max_size=4)


@given(seed=st.integers(0, 2**64 - 1), a=identities, b=identities)
def test_samples_of_different_ids_have_different_seeds(
    seed: int, a: list[Any], b: list[Any]
) -> None:
    """Text and numbers that look alike, too: document 1 is not document "1"."""
    found = sample_seed(seed, *a)
    assert 0 <= found < 2**64
    assert (found == sample_seed(seed, *b)) == ([*map(repr, a)] == [*map(repr, b)])


def test_a_seed_is_the_same_everywhere() -> None:
    """The first 8 bytes of `printf "[5, \"sums\", 3, 0, 1]" | sha256sum`, the lowest first."""
    assert sample_seed(5, "sums", 3, 0, 1) == 8699123993569530557
    assert sample_seed(6, "sums", 3, 0, 1) != 8699123993569530557
