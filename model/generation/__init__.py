"""Generation: prefill once, then a token a pass, with hooks firing in every pass."""

from .generate import generate
from .output import FinishReason, GenerateOutput
from .sequence import Stream
from .stops import Stop, StopFunction

__all__ = ["FinishReason", "GenerateOutput", "Stop", "StopFunction", "Stream", "generate"]
