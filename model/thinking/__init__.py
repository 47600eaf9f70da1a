"""More computation at the time of the answer: budgets of thinking, votes, best of n, and estimators
of what each buys.

    from bitlens.model.thinking import think, vote
    thoughts = think(model, "What is 7 + 5?", max_thinking=64, n=8, temperature=1.0, seed=0)
    print(vote(thoughts.answer))

docs/thinking.md says what each method costs.
"""

from .estimators import best_of_n, maj_at_k, pass_at_k
from .formats import formats
from .gym import gym_problems
from .layout import ThinkingLayout
from .measure import Curve, Point, Problem, measure
from .needles import needles
from .scorers import Scorer, Thought, mean_logprob
from .selection import best, vote, weighted_vote
from .task_names import problems_named
from .tasks import read_number, read_problems, sums
from .think import Thoughts, think

__all__ = [
    "Curve",
    "Point",
    "Problem",
    "Scorer",
    "ThinkingLayout",
    "Thought",
    "Thoughts",
    "best",
    "best_of_n",
    "formats",
    "gym_problems",
    "maj_at_k",
    "mean_logprob",
    "measure",
    "needles",
    "pass_at_k",
    "problems_named",
    "read_number",
    "read_problems",
    "sums",
    "think",
    "vote",
    "weighted_vote",
]
