"""Rewards: normalised sums, baselines that know nothing, and over-optimisation."""

from .baselines import LengthScore, Score, WordScore
from .merit import Lead, Merit, NoMerit, merit
from .model_reward import ModelReward
from .normalise import WEIGHTS, Normaliser, weighted_sum
from .overoptimisation import OverOptimisation, Point, best_of_n, over_optimisation
from .pareto import Trade, chosen, trade_offs

__all__ = [
    "WEIGHTS",
    "Lead",
    "LengthScore",
    "Merit",
    "ModelReward",
    "NoMerit",
    "Normaliser",
    "OverOptimisation",
    "Point",
    "Score",
    "Trade",
    "WordScore",
    "best_of_n",
    "chosen",
    "merit",
    "over_optimisation",
    "trade_offs",
    "weighted_sum",
]
