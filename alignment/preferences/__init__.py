"""AI preferences: labels in both orders, what they are worth, and the gate before training."""

from .gate import BOUND, Gate, UngatedLabels, gate
from .judges import FORMS, Judge, ModelJudge, Question
from .label import Labels, label
from .pairs import AnswerPair, read_pairs
from .relabel import Relabelled, changed_verdicts, relabel
from .summary import LabelSummary
from .transcripts import UsablePairs, usable_pairs

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
    "UsablePairs",
    "changed_verdicts",
    "gate",
    "label",
    "read_pairs",
    "relabel",
    "usable_pairs",
]
