"""SL-CAI: answers, critiques of them by principles, and revisions that become training data."""

from .drafts import Draft, Reviser
from .model_reviser import ModelReviser
from .revise import replay, revise
from .targets import sft_rows

__all__ = ["Draft", "ModelReviser", "Reviser", "replay", "revise", "sft_rows"]
