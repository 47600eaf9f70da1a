"""One answer to a question, with its verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...model.batching.row import FinishReason
from ...model.text.tools import ToolCall, ToolFormat
from .questions import Question
from .rules import fault_of
from .schemas import misfit, schema_of

Choice = Literal["auto", "required"]
"""Whether an answer may be text, or must be one call."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: What was said beside calls.
        calls: Each one's name and arguments.
        misfit: What of its form does not fit the functions' schemas; None where all does.
        fault: Why it is wrong by the leaderboard's rules; None where it is right.
    """

    id: str
    category: str
    choice: Choice
    finish_reason: FinishReason
    text: str
    calls: tuple[Mapping[str, Any], ...]
    misfit: str | None
    fault: str | None
    prompt_tokens: int
    output_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        return asdict(self)


def judged(
    question: Question,
    choice: Choice,
    form: ToolFormat,
    parts: Sequence[str | ToolCall],
    finish_reason: FinishReason,
    n_tokens: tuple[int, int],
) -> Answer:
    """Returns an answer with its verdicts. `parts`: what a `CallParser` made of it; `n_tokens`: of
    the prompt, and of the answer."""
    calls = [part for part in parts if isinstance(part, ToolCall)]
    text = "".join(part for part in parts if isinstance(part, str))
    return Answer(
        question.id,
        question.category,
        choice,
        finish_reason,
        text,
        tuple({"name": call.name, "arguments": dict(call.arguments)} for call in calls),
        _misfit(question, choice, form, calls, text),
        fault_of(calls, question),
        *n_tokens,
    )


def _misfit(
    question: Question, choice: Choice, form: ToolFormat, calls: Sequence[ToolCall], text: str
) -> str | None:
    schemas = {each["name"]: schema_of(each["parameters"]) for each in question.functions}
    for call in calls:
        if (found := misfit(call.arguments, schemas[call.name])) is not None:
            return f"{call.name}: {found}"
    if choice == "required" and (text or len(calls) != 1):
        return f"{len(calls)} calls and {len(text)} characters of text, where one call must be"
    if form.opening and form.opening in text:
        return "a call was opened that is none"
    return None
