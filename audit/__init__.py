"""`bitlens audit`: one path of a model judged against another on real prompts, in one report; and
`bitlens compare`: two runs of an evaluation, item by item."""

from .evaluations import Comparison, EvaluationError, EvaluationPlan, compare, plan
from .page import render
from .result import AuditResult
from .run import Plan, audit, run_audit

__all__ = [
    "AuditResult",
    "Comparison",
    "EvaluationError",
    "EvaluationPlan",
    "Plan",
    "audit",
    "compare",
    "plan",
    "render",
    "run_audit",
]
