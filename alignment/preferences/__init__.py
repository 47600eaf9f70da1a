"""AI preferences: labels in both orders, what they are worth, and the gate before training."""

from .gate import BOUND, Gate, UngatedLabels, gate
from .judges import FORMS, Judge, ModelJudge, Question
from .label import Labels, label
from .pairs import AnswerPair, read_pairs
from .summary import LabelSummary

__all__ = [
    "BOUND",
    "FORMS",
    "AnswerPair",
    "Gate",
    "Judge",
    "LabelSummary",
    "Labels",
    "ModelJudge",
    "Question",
    "UngatedLabels",
    "gate",
    "label",
    "read_pairs",
]
