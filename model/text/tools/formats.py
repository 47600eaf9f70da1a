"""The ways in which models write calls of tools, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ToolFormat:
    """One way of writing calls: JSON objects with a name and arguments, between marks.

    Attributes:
        opening, closing: Before and after a call, or a list of them.
        is_token: The opening is a special token, which never comes out as text.
        arguments: The name that the object has for its arguments.
        is_list: The calls of an answer stand in one JSON list.
        marker: Text of a chat template that writes calls so.
    """

    name: str
    opening: str
    closing: str
    is_token: bool
    arguments: str
    is_list: bool
    marker: str


FORMATS: dict[str, ToolFormat] = {
    each.name: each
    for each in (
        # https://github.com/NousResearch/Hermes-Function-Calling, Qwen 2.5 and 3
        ToolFormat(
            name="hermes",
            opening="<tool_call>\n",
            closing="\n</tool_call>",
            is_token=False,
            arguments="arguments",
            is_list=False,
            marker="<tool_call>",
        ),
        # Mistral Instruct from v0.3 to the v7 tokenizer; later ones write [ARGS]
        ToolFormat(
            name="mistral",
            opening="[TOOL_CALLS]",
            closing="",
            is_token=True,
            arguments="arguments",
            is_list=True,
            marker="[TOOL_CALLS]",
        ),
        # Llama 3.1 to 3.3: an answer that is a call is nothing else
        ToolFormat(
            name="llama3",
            opening="",
            closing="",
            is_token=False,
            arguments="parameters",
            is_list=False,
            marker='"parameters"',
        ),
    )
}
"""By name, in the order in which a template is asked for their markers."""

PLAIN = FORMATS["hermes"]
"""The format that models are told of in a system prompt, where their template knows no tools."""


def format_of(template: str) -> ToolFormat | None:
    """Returns the format of a chat template, None for one that knows no tools.

    Raises ValueError for one that writes calls in a way that is not in `FORMATS`.
    """
    if not re.search(r"\btools\b", template):
        return None
    found = next((each for each in FORMATS.values() if each.marker in template), None)
    if found is None or "[ARGS]" in template:
        raise ValueError(
            "tools: the chat template writes calls in a way that is not known here; known are "
            f"{', '.join(FORMATS)}"
        )
    return found
