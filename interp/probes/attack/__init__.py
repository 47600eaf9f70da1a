"""Attacks on a probe: rewritten texts, and a search for tokens that hide a text from it."""

from .attack import AttackConfig, attack_probe
from .rewrites import REWRITES
from .search import Hidden, hide

__all__ = ["REWRITES", "AttackConfig", "Hidden", "attack_probe", "hide"]
