"""Guides: the tokens that may come next, so that a text fits a JSON schema or a grammar.

The rules are llguidance's (the extra `tools`); a guide masks logits before the sampler sees them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Schema = Mapping[str, Any]
"""A JSON schema."""

_AS_PYTHON_WRITES = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""JSON without choices of white space, which a model could otherwise write without end."""


class Guide:
    """The rules for one sequence, and how far it has come."""

    def __init__(self, matcher: LLMatcher, d_vocab: int) -> None:
        self._matcher, self._d_vocab = matcher, d_vocab
        self._banned_V = self._banned()

    def mask(self, logits_V: torch.Tensor, vocab_start: int) -> torch.Tensor:
        """Returns the logits with -inf for tokens that may not come next.

        They are of the ids from `vocab_start` on.
        """
        banned_V = self._banned_V[vocab_start : vocab_start + len(logits_V)]
        return logits_V.masked_fill(banned_V, -torch.inf)

    def accept(self, token: int) -> None:
        """Goes on by a token. Raises ValueError where the rules grow beyond llguidance's limits."""
        self._matcher.consume_token(token)
        self._banned_V = self._banned()

    def _banned(self) -> torch.Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise ValueError(f"schema: {self._matcher.get_error()}")
        allowed = np.unpackbits(bits, count=self._d_vocab, bitorder="little")
        return torch.from_numpy(allowed == 0)


class GuideMaker:
    """Makes guides for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer | None, d_vocab: int) -> None:
        self._tokenizer, self._d_vocab = tokenizer, d_vocab

    def grammar(self, schema: Schema) -> str:
        """Returns the grammar of a schema's JSON.

        Raises ModuleNotFoundError without the extra `tools`.
        """
        return str(
            _library().LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides=_AS_PYTHON_WRITES
            )
        )

    def make(self, grammar: str, n: int) -> list[Guide]:
        """Returns guides for n sequences. `grammar` is one of llguidance's.

        Raises ValueError for one that is none or asks for what is not supported, for a model
        without a tokenizer or an end of text, and ModuleNotFoundError without the extra `tools`.
        """
        matcher = _library().LLMatcher
        problem = matcher.validate_grammar(grammar, self._tokens)
        if problem and not problem.startswith("WARNING"):
            raise ValueError(f"schema: {problem}")
        made = matcher(self._tokens, grammar, log_level=0)
        return [Guide(made.deep_copy(), self._d_vocab) for _ in range(n)]

    @cached_property
    def _tokens(self) -> LLTokenizer:
        if self._tokenizer is None or not self._tokenizer.eos_ids:
            raise ValueError("schema: the model needs a tokenizer, and a token that ends a text")
        tokens: LLTokenizer = _library().LLTokenizer(
            self._tokenizer.serialized(),
            n_vocab=self._d_vocab,
            eos_token=list(self._tokenizer.eos_ids),
        )
        return tokens


def _library() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "schemas and forced calls need llguidance: pip install 'bitlens[tools]'",
            name=error.name,
        ) from error
    return llguidance
