"""Checks of what a request asks for, before anything is computed."""

from __future__ import annotations

from ..sampling import SamplingParams
from ..text.prompts import check_ids


def check_counts(
    top_k: int | None, n: int, max_new_tokens: int, min_new_tokens: int, ngram: int
) -> None:
    """Raises ValueError for numbers of tokens, samples or kept tokens that make no sense."""
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k = {top_k}: expected at least 1")
    if ngram < 0:
        raise ValueError(f"no_repeat_ngram_size = {ngram}: expected 0 or more")
    if n < 1 or max_new_tokens < 1 or not 0 <= min_new_tokens <= max_new_tokens:
        raise ValueError(
            f"n = {n}, max_new_tokens = {max_new_tokens}, min_new_tokens = {min_new_tokens}: "
            "expected n >= 1, max_new_tokens >= 1, 0 <= min_new_tokens <= max_new_tokens"
        )


def check_length(n_prompt: int, max_new_tokens: int, n_ctx: int) -> None:
    """Raises ValueError for a prompt whose answer may exceed the context."""
    if n_prompt + max_new_tokens > n_ctx:
        raise ValueError(
            f"max_new_tokens = {max_new_tokens} after a prompt of {n_prompt} exceeds the context "
            f"of {n_ctx}"
        )


def check_token_ids(params: SamplingParams, d_vocab: int) -> None:
    """Raises ValueError for an id in a request's parameters that is not in the vocabulary."""
    check_ids(list(params.logit_bias), d_vocab, "logit_bias")
    check_ids(list(params.allowed_token_ids or ()), d_vocab, "allowed_token_ids")
