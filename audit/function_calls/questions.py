"""Questions of the Berkeley Function-Calling Leaderboard, from bfcl-eval's wheel (Apache-2.0).

The wheel is data here: nothing of it is imported, and none of what it depends on is installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...interp.probes.data.archive import Archive, Wheel
from ...interp.probes.data.example import DataError
from ...model.sources import PinnedWheel
from ...model.text.chat_template import Message

WHEEL = PinnedWheel(
    requirement="bfcl-eval==2026.3.23",
    file_name="bfcl_eval-2026.3.23-py3-none-any.whl",
    n_bytes=1_925_664,
    sha256="3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
)

CATEGORIES: dict[str, str] = {
    "simple": "simple_python",
    "multiple": "multiple",
    "irrelevance": "irrelevance",
}
"""Categories by name, with the wheel's name: one function that fits, one of several, none."""

UNANSWERABLE = "irrelevance"
"""The category in which a model should call nothing."""

_DATA = "bfcl_eval/data/"


@dataclass(frozen=True)
class Question:
    """A conversation, the functions that are offered, and what the right call is.

    Attributes:
        functions: As the leaderboard writes them, with its own names of types.
        allowed: By name of the right function, for each argument the values that count as right,
            "" among them where it may be left out; None where nothing should be called.
    """

    id: str
    category: str
    messages: tuple[Message, ...]
    functions: tuple[Mapping[str, Any], ...]
    allowed: Mapping[str, Mapping[str, Sequence[Any]]] | None


def read_questions(category: str, wheel: Wheel = WHEEL) -> list[Question]:
    """Returns a category's questions: simple 400, multiple 200, irrelevance 240.

    Raises:
        ValueError: there is no such category.
        DataError: a wheel that lacks them, or holds others.
        FetchError: the wheel is not in the cache and cannot be fetched.
    """
    if category not in CATEGORIES:
        raise ValueError(f"category {category!r}: expected one of {', '.join(CATEGORIES)}")
    file = f"BFCL_v4_{CATEGORIES[category]}.json"
    with Archive(wheel) as archive:
        rows = list(archive.json_lines(f"{_DATA}{file}"))
        right: dict[str, Any] = {}
        if category != UNANSWERABLE:
            answers = archive.json_lines(f"{_DATA}possible_answer/{file}")
            right = {row["id"]: row["ground_truth"] for row in answers}
    try:
        return [_question(category, row, right.get(row["id"])) for row in rows]
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{file}: not the leaderboard's form: {error!r}") from error


def _question(category: str, row: Mapping[str, Any], right: Any) -> Question:
    (messages,) = row["question"]  # these categories have one turn
    allowed = None
    if category != UNANSWERABLE:
        (allowed,) = right
        (name,) = allowed
        if name not in [each["name"] for each in row["function"]]:
            raise ValueError(f"{row['id']}: the right function is not among those offered")
    return Question(row["id"], category, tuple(messages), tuple(row["function"]), allowed)
