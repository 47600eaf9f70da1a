"""Two runs of an evaluation compared item by item, and how many items that needs beforehand.

    from bitlens.audit import compare, plan
    print(plan(effect=0.01, discordance=0.05).items)
    print(compare("runs/before", "runs/after", margin=0.01))

docs/evaluation.md says what each figure means.
"""

from .canaries import Canaries
from .comparison import Comparison, TaskComparison, compare
from .items import EvaluationError, EvaluationRun, Item
from .planning import EvaluationPlan, plan
from .read import read_run

__all__ = [
    "Canaries",
    "Comparison",
    "EvaluationError",
    "EvaluationPlan",
    "EvaluationRun",
    "Item",
    "TaskComparison",
    "compare",
    "plan",
    "read_run",
]
