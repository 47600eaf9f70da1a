"""Grades of a platform, each by what it rests on."""

from __future__ import annotations

from enum import IntEnum


class Grade(IntEnum):
    """The measure of what was shown, the least first."""

    NOT_RUN = 0
    NOT_SHOWN = 1
    EQUIVALENT = 2
    WITHIN_CONTRACT = 3
    SAME_BITS = 4

    @property
    def words(self) -> str:
        """Returns the grade with what it rests on."""
        return _WORDS[self]


_WORDS = {
    Grade.NOT_RUN: "not run",
    Grade.NOT_SHOWN: "not shown",
    Grade.EQUIVALENT: "equivalent within the margin (statistical)",
    Grade.WITHIN_CONTRACT: "every operation within its contract (for the values checked)",
    Grade.SAME_BITS: "same bits",
}
