"""Conversations whose roles cannot be forged.

A template writes turns with tokens such as <|im_start|>, and a tokenizer reads a text that spells
one as that token, whoever wrote it. Here what messages and variables say is told from what the
template says, and of the former nothing becomes such a token; all other ids stay what they were.
"""

from __future__ import annotations

import json
import re
import secrets
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .chat_template import ChatTemplateError, Message
from .library_errors import library_errors, tokenizer_failed

if TYPE_CHECKING:
    import tokenizers

Render = Callable[[Sequence[Message], dict[str, Any]], str]
"""From messages and variables to the conversation's text."""

Span = tuple[int, int]
"""Where a piece of text begins and ends."""


@dataclass(frozen=True)
class ConversationEncoder:
    """Encodes what a template makes of a conversation.

    Attributes:
        backend: The tokenizer, which reads added tokens wherever they are spelled.
    """

    backend: tokenizers.Tokenizer

    def encode(
        self, messages: Sequence[Message], variables: dict[str, Any], render: Render
    ) -> list[int]:
        """Returns the ids of a rendered conversation.

        Raises:
            ValueError: a tokenizer that fails.
            ChatTemplateError: a role that spells an added token, or a template that alters a text
                that spells one, so that nobody can tell who wrote it.
        """
        text = render(messages, variables)
        encoding = _encoded(self.backend, text)
        found = _added(encoding, self._texts)
        if not found:
            warnings.warn(
                "the chat template marks turns by plain text, which a message can spell, too: "
                "its roles can be forged",
                stacklevel=2,
            )
        for message in messages:
            if any(token in str(message.get("role")) for token in self._texts.values()):
                raise ChatTemplateError(f"role = {message['role']!r}: it spells a special token")
        given = dict.fromkeys(_strings([messages, variables]))
        doubtful = [each for each in given if self._may_spell(each)]
        if not doubtful:
            return list(encoding.ids)
        marks = _marks(doubtful)
        marked = render(_replaced(messages, marks), _replaced(variables, marks))
        written = _locate(text, marked, {mark: each for each, mark in marks.items()})
        if written is None:
            if any(token in each for each in doubtful for token in self._texts.values()) or len(
                found
            ) != self._n_added(marked):
                raise ChatTemplateError(
                    "a message spells a special token, and the chat template alters messages, so "
                    "that nobody can tell its text from the template's; take the token out of it"
                )
            written = []
        forged = {span for span in found if any(_overlap(span, each) for each in written)}
        if forged:
            return self._encode_around(
                text, [each for each in found if each not in forged], encoding
            )
        return list(encoding.ids)

    def _encode_around(
        self, text: str, tokens: list[Span], encoding: tokenizers.Encoding
    ) -> list[int]:
        """The ids of these added tokens, and of all between them as plain text."""
        id_at = dict(zip(encoding.offsets, encoding.ids, strict=True))
        ids: list[int] = []
        end = 0
        for start, stop in [*tokens, (len(text), len(text))]:
            if start > end:
                ids += _encoded(self._plain, text[end:start]).ids
            if stop > start:
                ids.append(id_at[start, stop])
            end = stop
        n_tokens = sum(each in self._texts for each in ids)
        if n_tokens != len(tokens):
            raise ChatTemplateError(
                "a message spells a special token that this tokenizer cannot read as plain text"
            )
        return ids

    @cached_property
    def _texts(self) -> Mapping[int, str]:
        """Added tokens by id: those that are not special steer a model, too (<tool_call>)."""
        added = self.backend.get_added_tokens_decoder()
        return {token_id: token.content for token_id, token in added.items() if token.content}

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same tokenizer without added tokens."""
        import tokenizers

        state = json.loads(self.backend.to_str())
        state["added_tokens"] = []
        # What it would add to whole texts names added tokens, and is not asked for.
        state["post_processor"] = None
        with library_errors(tokenizer_failed):
            return tokenizers.Tokenizer.from_str(json.dumps(state))

    def _n_added(self, text: str) -> int:
        return len(_added(_encoded(self.backend, text), self._texts))

    @cached_property
    def _halves(self) -> tuple[frozenset[str], frozenset[str]]:
        """Beginnings and endings of added tokens: real tokenizers have a thousand of these."""
        tokens = [(token, n) for token in self._texts.values() for n in range(1, len(token))]
        return frozenset(t[:n] for t, n in tokens), frozenset(t[-n:] for t, n in tokens)

    def _may_spell(self, text: str) -> bool:
        """Whether a text holds an added token, or a part that its neighbours may complete."""
        beginnings, endings = self._halves
        longest = max(map(len, self._texts.values()), default=0)
        lengths = range(1, min(longest, len(text) + 1))
        return any(text[-n:] in beginnings or text[:n] in endings for n in lengths) or any(
            token in text for token in self._texts.values()
        )


def _encoded(backend: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    with library_errors(tokenizer_failed):
        return backend.encode(text, add_special_tokens=False)


def _added(encoding: tokenizers.Encoding, texts: Mapping[int, str]) -> list[Span]:
    pairs = zip(encoding.ids, encoding.offsets, strict=True)
    return [span for token_id, span in pairs if token_id in texts]


def _strings(value: Any) -> Iterable[str]:
    """Every text in a value that JSON can hold, but for roles."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            if key != "role":
                yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)


def _replaced(value: Any, marks: Mapping[str, str]) -> Any:
    """The same value with marks in place of texts."""
    if isinstance(value, str):
        return marks.get(value, value)
    if isinstance(value, Mapping):
        return {
            marks.get(key, key): each if key == "role" else _replaced(each, marks)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_replaced(each, marks) for each in value]
    return value


def _marks(texts: Sequence[str]) -> dict[str, str]:
    """A word for each text that nobody has written: 32 letters, a number, the same letters."""
    word = f"x{secrets.token_hex(15)}x"
    return {each: f"{word}{i}{word}" for i, each in enumerate(texts)}


def _locate(text: str, marked: str, texts: Mapping[str, str]) -> list[Span] | None:
    """The spans of a rendered conversation that hold what marks stand for in another one; None if
    the two do not agree on all else."""
    spans: list[Span] = []
    pieces = re.split("(" + "|".join(map(re.escape, texts)) + ")", marked)
    if not text.startswith(pieces[0]):
        return None
    at = len(pieces[0])
    for mark, literal in zip(pieces[1::2], pieces[2::2], strict=True):
        fitting = (form for form in _forms(texts[mark]) if text.startswith(form + literal, at))
        form = next(fitting, None)
        if form is None:
            return None
        spans.append((at, at + len(form)))
        at += len(form) + len(literal)
    return spans if at == len(text) else None


def _forms(text: str) -> Iterable[str]:
    """The forms that templates give a text: itself, stripped, or inside a JSON string."""
    yield text
    yield text.strip()
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(text)[1:-1]


def _overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]
