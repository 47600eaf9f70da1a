"""Calls of tools, read out of a text as it comes."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .formats import ToolFormat

_IN_A_STRING = ("Unterminated string", "Invalid \\")
"""Beginnings of what `json` says of a text that ends within a string."""

_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Tool:
    """A function that a model may call.

    Attributes:
        parameters: JSON schema of its arguments.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    def as_template_takes_it(self) -> dict[str, Any]:
        """Returns the tool in the form that chat templates read."""
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": dict(self.parameters)}}


@dataclass(frozen=True)
class ToolChoice:
    """Whether tools are called.

    Attributes:
        kind: "none" never, "auto" as the model likes, "required" at least one.
        name: The one that is called, where it is required.
        parallel: An answer may call more than one.
    """

    kind: Literal["none", "auto", "required"] = "auto"
    name: str | None = None
    parallel: bool = True


def _new_id() -> str:
    """Nine letters and digits: Mistral's templates take no others."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(9))


@dataclass(frozen=True)
class ToolCall:
    """A call that a model has made."""

    name: str
    arguments: Mapping[str, Any]
    id: str = field(default_factory=_new_id, compare=False)


class CallParser:
    """Sorts an answer's text, piece by piece, into what is said and what is called.

    What may become a call is held back until it is one, or cannot be one and is text. An object
    that calls no tool of these is text: nobody is asked to run what was not offered.
    """

    def __init__(self, form: ToolFormat, names: Collection[str], opening_id: int | None) -> None:
        """`opening_id`: the token that opens calls, where it never comes out as text."""
        self._form, self._names = form, names
        self._opening_id = opening_id if form.is_token else None
        self._mark, self._closing = form.opening.strip(), form.closing.strip()
        self._held = ""
        self._inside = self._said = self._has_called = False

    def push(self, text: str, token: int | None = None) -> list[str | ToolCall]:
        """Adds what a token brought; returns what is known by now to be text or a call."""
        found: list[str | ToolCall] = []
        if token is not None and token == self._opening_id:
            found += self.finish()
            self._inside = True
        self._held += text
        while (step := self._called() if self._inside else self._spoken()) is not None:
            found += step
        return found

    def finish(self) -> list[str | ToolCall]:
        """Returns what was held back: text, since it became no call."""
        rest, self._held, self._inside = self._held, "", False
        return self._text(rest)

    def _text(self, text: str) -> list[str | ToolCall]:
        """Text that is said, but for what only stands between calls."""
        if not text or (self._has_called and not text.strip("; \n")):
            return []
        self._said = True
        return [text]

    def _spoken(self) -> list[str | ToolCall] | None:
        """Takes text up to an opening; None where no more can be said of what is held."""
        if not self._mark:
            return self._begun()
        at = self._held.find(self._mark)
        if at >= 0:
            text, self._held, self._inside = self._held[:at], self._held[at:], True
            return self._text(text)
        longest = min(len(self._held), len(self._mark) - 1)
        ends = (n for n in range(longest, 0, -1) if self._held.endswith(self._mark[:n]))
        keep = len(self._held) - next(ends, 0)
        text, rest = self._held[:keep], self._held[keep:]
        if not text or (self._has_called and not text.strip()):
            return None
        self._held = rest
        return self._text(text)

    def _begun(self) -> list[str | ToolCall] | None:
        """Tells an answer that is nothing but calls from one that is nothing but text."""
        begun = self._held.lstrip("; \n")
        if not begun:
            return None
        if begun[0] == "{" and not self._said:
            self._held, self._inside = begun, True
            return []
        text, self._held = self._held, ""
        return self._text(text)

    def _called(self) -> list[str | ToolCall] | None:
        """Takes a call once it is whole, or what can be none; None while it may become one."""
        start = len(self._mark) if self._held.startswith(self._mark) else 0
        start += len(self._held[start:]) - len(self._held[start:].lstrip())
        try:
            value, end = json.JSONDecoder().raw_decode(self._held, start)
        except (json.JSONDecodeError, RecursionError) as error:
            # A closing that a string holds closes nothing.
            wrong_at = getattr(error, "pos", start)
            at = self._held.find(self._closing, wrong_at) if self._closing else -1
            if at < 0 or getattr(error, "msg", "").startswith(_IN_A_STRING):
                return None
            return self._take(at + len(self._closing), None)
        rest = self._held[end:].lstrip()
        if rest.startswith(self._closing):
            after = rest[len(self._closing) :] if self._closing else self._held[end:]
            return self._take(len(self._held) - len(after), self._calls(value))
        if self._closing.startswith(rest):
            return None  # the closing is still to come
        return self._take(end, None)

    def _take(self, end: int, calls: list[ToolCall] | None) -> list[str | ToolCall]:
        """Takes what is held up to `end`: calls, or text where it is none."""
        text, self._held, self._inside = self._held[:end], self._held[end:], False
        if calls is None:
            return self._text(text)
        self._has_called = True
        return list(calls)

    def _calls(self, value: Any) -> list[ToolCall] | None:
        """The calls of an object or of a list of them; None where it is none."""
        values = value if self._form.is_list else [value]
        if not isinstance(values, list) or not values:
            return None
        found = []
        for each in values:
            if not isinstance(each, dict):
                return None
            name, arguments = each.get("name"), each.get(self._form.arguments)
            if not isinstance(name, str) or name not in self._names:
                return None
            if not isinstance(arguments, dict):
                return None
            found.append(ToolCall(name, arguments))
        return found
