"""Does a model call the right function? The Berkeley leaderboard's questions, asked of an engine.

    from bitlens.audit.function_calls import ask, read_questions, shares
    answers = ask(model, read_questions("simple"))
    print(shares(answers))

docs/tool_calling.md says what each figure means.
"""

from .answer import Answer
from .asking import ask
from .questions import CATEGORIES, WHEEL, Question, read_questions
from .rules import fault_of
from .schemas import as_tool, misfit
from .shares import CategoryShares, shares

__all__ = [
    "CATEGORIES",
    "WHEEL",
    "Answer",
    "CategoryShares",
    "Question",
    "as_tool",
    "ask",
    "fault_of",
    "misfit",
    "read_questions",
    "shares",
]
