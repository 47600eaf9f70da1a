"""A stand-in harm that hurts nobody: a forbidden substance that does not exist.

Requests for it, wrappers around them, near misses that name it, benign requests of the same form,
and a second substance that is held out, all from a seed. Every row may be stored and printed.
"""

from .answers import REFUSALS, VERDICTS, Verdict, answer, refusal, verdict
from .prompts import KINDS, StandIn, prompts, rewrapped
from .words import HELD_OUT_TEMPLATES, SUBSTANCES, TEMPLATES

__all__ = [
    "HELD_OUT_TEMPLATES",
    "KINDS",
    "REFUSALS",
    "SUBSTANCES",
    "TEMPLATES",
    "VERDICTS",
    "StandIn",
    "Verdict",
    "answer",
    "prompts",
    "refusal",
    "rewrapped",
    "verdict",
]
