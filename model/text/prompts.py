"""Prompts of every accepted form as token ids. Tensor names: B batch, P padded positions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..batch import RaggedBatch
from .chat_template import Message
from .tokenizer import Tokenizer

Text = str | Sequence[str]
Tokens = torch.Tensor | Text
Conversations = Sequence[Message] | Sequence[Sequence[Message]]
Prompt = torch.Tensor | Text | Sequence[int] | Sequence[Sequence[int]] | Conversations


def as_batch(
    tokens: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One sequence [P] as a batch of one, its mask with it."""
    if tokens.ndim != 1:
        return tokens, attention_mask
    if attention_mask is not None and attention_mask.ndim == 1:
        attention_mask = attention_mask[None]
    return tokens[None], attention_mask


def require_tokenizer(tokenizer: Tokenizer | None) -> Tokenizer:
    """Raises ValueError where text is asked of a model without a tokenizer."""
    if tokenizer is None:
        raise ValueError("this model was loaded without a tokenizer: pass token ids, not text")
    return tokenizer


def encode(text: Text, tokenizer: Tokenizer | None, prepend_bos: bool | None) -> list[list[int]]:
    """Token ids of each text; `prepend_bos` None does as the model was trained."""
    tokenizer = require_tokenizer(tokenizer)
    add_bos = tokenizer.prepends_bos if prepend_bos is None else prepend_bos
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, Sequence) or not all(isinstance(each, str) for each in texts):
        raise TypeError(
            f"tokens: expected an int64 tensor or text (one or a list), got {type(text).__name__}"
        )
    return [tokenizer.encode(each, add_bos=add_bos) for each in texts]


def left_pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as int64 [B, P] and their mask [B, P], 1 at real tokens.

    Raises ValueError for no rows and for an empty one.
    """
    if not rows or not all(rows):
        raise ValueError("tokens: empty prompt")
    extremes = [id_ for row in rows for id_ in (min(row), max(row)) if not -(2**63) <= id_ < 2**63]
    if extremes:
        raise ValueError(f"tokens: id {extremes[0]} is not in any vocabulary")
    width = max(map(len, rows))
    tokens_BP = torch.full((len(rows), width), pad_id, dtype=torch.int64, device="cpu")
    mask_BP = torch.zeros(len(rows), width, dtype=torch.int64, device="cpu")
    for b, row in enumerate(rows):
        tokens_BP[b, width - len(row) :] = torch.tensor(row, dtype=torch.int64, device="cpu")
        mask_BP[b, width - len(row) :] = 1
    return tokens_BP, mask_BP


def token_batch(
    tokens: Tokens,
    attention_mask: torch.Tensor | None,
    tokenizer: Tokenizer | None,
    prepend_bos: bool | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids or texts as ids [B, P] and their mask; `prepend_bos` None does as the model was trained.

    Raises ValueError for a mask beside texts, which are padded and masked here.
    """
    if not isinstance(tokens, torch.Tensor):
        if attention_mask is not None:
            raise ValueError("attention_mask: texts are masked here, pass none with them")
        rows = encode(tokens, tokenizer, prepend_bos)
        tokens, attention_mask = left_pad(rows, padding_id(tokenizer))
    elif attention_mask is None and tokenizer is not None:
        _warn_of_padding(tokens, padding_id(tokenizer))
    return as_batch(tokens, attention_mask)


def _warn_of_padding(tokens: torch.Tensor, pad_id: int) -> None:
    """Warns where rows look padded as `to_tokens` pads them, and nothing says so."""
    if tokens.ndim != 2 or min(tokens.shape) < 2 or not bool((tokens[:, 0] == pad_id).any()):
        return
    widths = (tokens == pad_id).long().cumprod(1).sum(1).tolist()
    if len(set(widths)) > 1:
        warnings.warn(
            f"tokens: rows begin with {min(widths)} to {max(widths)} tokens of id {pad_id}, which "
            "fills up shorter texts, and no attention_mask leaves them out: they are read as text. "
            "Pass the texts themselves, or an attention_mask",
            stacklevel=2,
        )


def check_ids(ids: Sequence[int], d_vocab: int, name: str = "tokens") -> None:
    """Raises ValueError, with the argument's name, for an id that is not in the vocabulary."""
    low, high = min(ids, default=0), max(ids, default=0)
    if low < 0 or high >= d_vocab:
        raise ValueError(
            f"{name}: id {low if low < 0 else high} is not in the vocabulary, 0 to {d_vocab - 1}"
        )


def padding_id(tokenizer: Tokenizer | None) -> int:
    """Returns the id that fills up a batch; any id does, since padding never reaches the model."""
    if tokenizer is None:
        return 0
    candidates = (tokenizer.pad_id, *tokenizer.eos_ids, 0)
    return next(token_id for token_id in candidates if token_id is not None)


def prompt_rows(
    prompt: Prompt,
    tokenizer: Tokenizer | None,
    attention_mask: torch.Tensor | None,
    prepend_bos: bool | None,
    template_variables: Mapping[str, Any] | None = None,
) -> list[list[int]]:
    """Returns the ids of each prompt, without padding.

    Raises TypeError for a form that is none of `Prompt`, and ValueError for tensors and masks
    that do not fit, for a mask beside anything but a tensor, and for variables of a chat template
    beside anything but conversations.
    """
    if _is_conversation(prompt) or _is_batch(prompt):
        if attention_mask is not None:
            raise ValueError("attention_mask: only goes with a tensor of tokens")
        conversations: Any = [prompt] if _is_conversation(prompt) else prompt
        encode_chat = require_tokenizer(tokenizer).encode_chat
        return [encode_chat(each, **(template_variables or {})) for each in conversations]
    if template_variables:
        raise ValueError("template_variables: only go with conversations, which have a template")
    if isinstance(prompt, torch.Tensor):
        tokens_BP, mask_BP = as_batch(prompt, attention_mask)
        batch = RaggedBatch.from_tokens(tokens_BP, mask_BP)
        spans = zip(tokens_BP, batch.offsets, batch.lengths, strict=True)
        return [row[start : start + length].tolist() for row, start, length in spans]
    if attention_mask is not None:
        raise ValueError("attention_mask: only goes with a tensor of tokens")
    if isinstance(prompt, str) or _all(prompt, str):
        return encode(prompt, tokenizer, prepend_bos)  # type: ignore[arg-type]
    if _all(prompt, int):
        return [list(prompt)]  # type: ignore[arg-type]
    if isinstance(prompt, Sequence) and all(row == [] or _all(row, int) for row in prompt):
        return [list(row) for row in prompt]  # type: ignore[arg-type]
    raise TypeError(
        "prompt: expected text, a list of texts, token ids, a list of those, a tensor, or a "
        "conversation or a list of them (dicts with role and content), got "
        f"{type(prompt).__name__}"
    )


def _is_conversation(prompt: Any) -> bool:
    return _all(prompt, Mapping)


def _is_batch(prompt: Any) -> bool:
    return _all(prompt, Sequence) and all(map(_is_conversation, prompt))


def _all(items: Any, kind: type) -> bool:
    return isinstance(items, Sequence) and bool(items) and all(isinstance(x, kind) for x in items)
