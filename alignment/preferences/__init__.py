"""AI preferences: labels in both orders, what they are worth, and the gate before training."""

from .gate import BOUND, Gate, UngatedLabels, gate
from .judges import FORMS, Judge, ModelJudge, Question
from .label import Labels, label
from .pairs import AnswerPair, read_pairs
from .relabel import Relabelled, changed_verdicts, relabel
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
    "Relabelled",
    "UngatedLabels",
    "changed_verdicts",
    "gate",
    "label",
    "read_pairs",
    "relabel",
]
