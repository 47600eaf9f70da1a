"""Text in and out of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from ..ops.interface import Ops
from .chat_template import Message
from .prompts import Text, encode, left_pad, padding_id, require_tokenizer
from .tokenizer import Tokenizer


class TextInterface:
    """A model's methods that go through its tokenizer; all raise ValueError where it has none."""

    tokenizer: Tokenizer | None
    ops: Ops

    def to_tokens(self, text: Text, prepend_bos: bool | None = None) -> torch.Tensor:
        """Token ids int64 [B, P] of one text or several; shorter ones are padded on the left.

        `prepend_bos` None does as the model was trained. Pass texts themselves to the model to have
        the padding masked.
        """
        rows = encode(text, self.tokenizer, prepend_bos)
        return left_pad(rows, padding_id(self.tokenizer))[0].to(self.ops.device)

    def to_string(self, tokens: torch.Tensor | Sequence[int] | int) -> Any:
        """Returns the text of ids [P] or of one id, or a list of texts for ids [B, P].

        Special tokens are spelled out.
        """
        found: Any = tokens.tolist() if isinstance(tokens, torch.Tensor) else tokens
        ids: list[Any] = [found] if isinstance(found, int) else list(found)
        tokenizer = require_tokenizer(self.tokenizer)
        if ids and isinstance(ids[0], list):
            return [tokenizer.decode(row, skip_special=False) for row in ids]
        return tokenizer.decode(ids, skip_special=False)

    def to_str_tokens(
        self,
        text: str | torch.Tensor | Sequence[int] | Sequence[str],
        prepend_bos: bool | None = None,
    ) -> Any:
        """Each token of one text, or of ids [P] or [1, P], as a string of its own.

        A list of texts gives a list of these lists.
        """
        if isinstance(text, str):
            (ids,) = encode(text, self.tokenizer, prepend_bos)
        elif not isinstance(text, torch.Tensor) and text and isinstance(text[0], str):
            return [self.to_str_tokens(each, prepend_bos) for each in text]  # type: ignore[arg-type]
        else:
            ids = _one_row(torch.as_tensor(text))
        return require_tokenizer(self.tokenizer).token_strings(ids)

    def to_single_token(self, text: str) -> int:
        """The id of a text that is one token. Raises ValueError naming its tokens otherwise."""
        (ids,) = encode(text, self.tokenizer, prepend_bos=False)
        if len(ids) != 1:
            raise ValueError(f"{text!r} is not a single token but {self.to_str_tokens(ids)}")
        return ids[0]

    def to_single_str_token(self, token: int) -> str:
        """The text of one id."""
        return require_tokenizer(self.tokenizer).token_strings([token])[0]

    def get_token_position(
        self,
        single_token: str | int,
        text: str | torch.Tensor,
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool | None = None,
    ) -> int:
        """Returns the position of a token in a text, or in ids [P] or [1, P].

        Raises ValueError if it does not, and for more rows than one.
        """
        ids = self.to_tokens(text, prepend_bos) if isinstance(text, str) else text
        if ids.ndim == 2 and ids.shape[0] != 1:
            raise ValueError(f"text: expected one sequence, got {ids.shape[0]}")
        token = (
            self.to_single_token(single_token) if isinstance(single_token, str) else single_token
        )
        found = (ids.flatten() == token).nonzero().flatten()
        if not found.numel():
            raise ValueError(f"the token {single_token!r} does not occur in the prompt")
        if mode not in ("first", "last"):
            raise ValueError(f"mode = {mode!r}: expected 'first' or 'last'")
        return int(found[0 if mode == "first" else -1])

    def apply_chat_template(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> Any:
        """Returns the conversation as text, or a list of them as texts.

        Run it with `prepend_bos=False`. `variables` are the template's: `tools=`, `documents=`,
        `enable_thinking=` and so on.
        """
        tokenizer = require_tokenizer(self.tokenizer)
        return tokenizer.apply_chat_template(messages, add_generation_prompt, **variables)


def _one_row(tokens: torch.Tensor) -> list[int]:
    """Returns the ids of one sequence [P] or [1, P], or of one token []."""
    if tokens.ndim > 2 or (tokens.ndim == 2 and tokens.shape[0] != 1):
        raise ValueError(f"text: expected ids [P] or [1, P], got {list(tokens.shape)}")
    ids: list[int] = tokens.flatten().tolist()
    return ids
