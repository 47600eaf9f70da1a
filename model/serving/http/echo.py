"""Prompts of `/v1/completions`: one or several, and what `echo` puts before an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from ...generation.sequence import Logprobs
from ...text.tokenizer import Tokenizer
from ..request import Completion
from .errors import ApiError

OnePrompt = str | list[int]


def prompts_of(
    prompt: str | Sequence[int] | Sequence[str] | Sequence[list[int]],
) -> list[OnePrompt]:
    """Returns the prompts of a request, texts or token ids. Raises ApiError for none."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise ApiError(400, "prompt: expected one that is not empty", "prompt")
    if isinstance(prompt[0], int):
        return [[each for each in prompt if isinstance(each, int)]]
    return [each for each in prompt if not isinstance(each, int)]


def without_answer(completion: Completion) -> Completion:
    """Returns a completion less the token that reading its prompt brought."""
    usage = replace(completion.usage, output=0)
    return replace(completion, ids=[], text="", logprobs=[], n_handed_out=0, usage=usage)


def with_prompt(
    choice: Mapping[str, Any],
    prompt: OnePrompt,
    first: Completion,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """Returns a choice whose text and log-probabilities begin with the prompt's; `first` is the
    request's first sample, which has them."""
    text = prompt if isinstance(prompt, str) else tokenizer.decode(prompt, skip_special=False)
    found = {**choice, "text": text + choice["text"]}
    if choice["logprobs"] is not None and first.prompt_logprobs is not None:
        own = text_logprobs(first.prompt_ids, first.prompt_logprobs, tokenizer)
        answer = choice["logprobs"]
        end = sum(map(len, own["tokens"]))
        answer = {**answer, "text_offset": [end + at for at in answer["text_offset"]]}
        found["logprobs"] = {name: own[name] + answer[name] for name in own}
    return found


def text_logprobs(
    ids: Sequence[int], found: Sequence[Logprobs | None], tokenizer: Tokenizer
) -> dict[str, list[Any]]:
    """Returns tokens with their log-probabilities, those of the best in their places, and where
    each begins; nothing is known of a text's first token."""
    tokens = tokenizer.token_strings(ids)
    best = [
        entry and zip(tokenizer.token_strings(entry[1]), entry[2], strict=True) for entry in found
    ]
    return {
        "tokens": tokens,
        "token_logprobs": [entry and entry[0] for entry in found],
        "top_logprobs": [pairs and dict(pairs) for pairs in best],
        "text_offset": list(accumulate(map(len, tokens[:-1]), initial=0))[: len(tokens)],
    }
