"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from .chat_template import ChatTemplate, ChatTemplateError, Message
from .interruptible import interruptible
from .library_errors import library_errors, tokenizer_failed
from .roles import ConversationEncoder

if TYPE_CHECKING:
    import tokenizers

_MAX_ID = (1 << 32) - 1

_LONG = 1 << 16
"""Characters of a text that takes the tokenizer noticeably long."""


class Tokenizer:
    """A tokenizer of the `tokenizers` library with the model's special ids and chat template.

    Attributes:
        bos_id: Begins a text; None where the model has no such token.
        eos_ids: Any of these ends a generation.
        pad_id: Fills up a batch; None where the model has no such token.
        prepends_bos: Whether the model was trained on texts that begin with `bos_id`.
        special_tokens: What a chat template may call by name ("eos_token"), as text.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_id: int | None = None,
        eos_ids: Iterable[int] = (),
        pad_id: int | None = None,
        prepends_bos: bool = False,
        chat_template: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        # A tokenizer.json may carry its training's truncation, which would cut prompts silently.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.bos_id = bos_id
        self.eos_ids = tuple(dict.fromkeys(eos_ids))
        self.pad_id = pad_id
        self.prepends_bos = prepends_bos
        self._template = None if chat_template is None else ChatTemplate(chat_template)
        for token_id in (bos_id, pad_id, *self.eos_ids):
            if token_id is not None and self.token(token_id) is None:
                raise ValueError(f"special token id {token_id} is not in the vocabulary")
        named = self._named_by_id() if special_tokens is None else special_tokens
        self.special_tokens = dict(named)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary, added tokens included. The model's may be padded beyond it."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def definition(self) -> str:
        """The library's JSON: all that decides which ids a text gets."""
        return self._backend.to_str()

    @cached_property
    def special_ids(self) -> Mapping[str, int]:
        """Returns the ids of the special tokens by text; `decode` leaves them out."""
        added = self._backend.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special and token.content}

    @property
    def chat_template(self) -> str | None:
        """The template's Jinja text."""
        return None if self._template is None else self._template.source

    def token(self, token_id: int) -> str | None:
        """The vocabulary's entry, in its own alphabet ("Ġthe"), or None where there is none."""
        _check_id(token_id)
        return self._backend.id_to_token(token_id)

    def token_id(self, token: str) -> int | None:
        """The id of a vocabulary entry, or None where there is none."""
        return self._backend.token_to_id(token)

    def serialized(self) -> str:
        """Returns the tokenizer as the JSON of a tokenizer.json."""
        return str(self._backend.to_str())

    def encode(self, text: str, add_bos: bool = False) -> list[int]:
        """Token ids of the text. Special tokens spelled out in it become their ids.

        A byte that the vocabulary lacks (SmolLM2: a few control characters and unassigned planes)
        leaves nothing, as in Hugging Face's tokenizers.

        Raises:
            ValueError: `add_bos` for a model without such a token; a tokenizer that fails.
        """
        with library_errors(tokenizer_failed):
            ids = self._ids(text)
        if not add_bos:
            return ids
        if self.bos_id is None:
            raise ValueError("add_bos=True, but this model has no token that begins a text")
        return [self.bos_id, *ids]

    def _ids(self, text: str) -> list[int]:
        if len(text) < _LONG:
            return self._backend.encode(text, add_special_tokens=False).ids
        # A batch is encoded without the interpreter's lock, one text with it.
        (found,) = interruptible(
            lambda: self._backend.encode_batch([text], add_special_tokens=False)
        )
        return found.ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of the ids; ids from a padded vocabulary, which stand for nothing, leave nothing.

        Raises:
            ValueError: an id that cannot be one; a tokenizer that fails.
        """
        for token_id in ids:
            _check_id(token_id)
        with library_errors(tokenizer_failed):
            return self._backend.decode(list(ids), skip_special_tokens=skip_special)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """Each id decoded alone; a part of a UTF-8 character shows as U+FFFD."""
        return [self.decode([token_id], skip_special=False) for token_id in ids]

    @overload
    def apply_chat_template(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any
    ) -> str: ...

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Sequence[Message]],
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[str]: ...

    def apply_chat_template(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str | list[str]:
        """Returns the conversation as the model was trained to see it, for add_bos=False.

        Args:
            messages: A conversation, or a list of conversations, which gives a list of texts.
            add_generation_prompt: Whether to open the assistant's turn.
            variables: What else the template reads: `tools=`, `documents=`, `enable_thinking=` ...

        Raises:
            ChatTemplateError: no template, or it fails or refuses the messages.
        """
        if self._template is None:
            raise ChatTemplateError(
                "this model has no chat template: it is a base model, or its files lack one; "
                "pass plain text"
            )
        if not messages:
            raise ChatTemplateError("an empty conversation; pass at least one message")
        if isinstance(messages[0], list | tuple):
            return [self._render(each, add_generation_prompt, variables) for each in messages]  # type: ignore[arg-type]
        return self._render(messages, add_generation_prompt, variables)  # type: ignore[arg-type]

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[int]:
        """Returns the ids of one conversation: those of the text of `apply_chat_template`, but that
        special tokens which messages spell are plain text. Nobody can write another's turn.

        Raises:
            ChatTemplateError: as `apply_chat_template`; also for a template that alters a message
                which spells a special token, so that nobody can tell who wrote it.
        """

        def render(messages: Sequence[Message], variables: dict[str, Any]) -> str:
            return self.apply_chat_template(messages, add_generation_prompt, **variables)

        return self._conversations.encode(messages, variables, render)

    @cached_property
    def _conversations(self) -> ConversationEncoder:
        return ConversationEncoder(self._backend)

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, variables: dict[str, Any]
    ) -> str:
        assert self._template is not None
        return self._template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            special_tokens=self.special_tokens,
            variables=variables,
        )

    def _named_by_id(self) -> Mapping[str, str]:
        """Returns names for the special ids, where a source has none of its own."""
        ids = {
            "bos_token": self.bos_id,
            "eos_token": self.eos_ids[0] if self.eos_ids else None,
            "pad_token": self.pad_id,
        }
        return {
            name: self.token(token_id) or ""
            for name, token_id in ids.items()
            if token_id is not None
        }


def _check_id(token_id: int) -> None:
    if not 0 <= token_id <= _MAX_ID:
        problem = "is negative" if token_id < 0 else "is beyond any vocabulary"
        raise ValueError(f"token id {token_id} {problem}")
