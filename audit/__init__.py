"""`bitlens audit`: one path of a model judged against another on real prompts, in one report;
`bitlens equivalence`: the same model on other compilers; and `bitlens compare`: two runs of an
evaluation, item by item."""

from .evaluations import Comparison, EvaluationError, EvaluationPlan, compare, plan
from .page import render
from .platforms import EquivalenceReport, equivalence
from .result import AuditResult
from .run import Plan, audit, run_audit

__all__ = [
    "AuditResult",
    "Comparison",
    "EquivalenceReport",
    "EvaluationError",
    "EvaluationPlan",
    "Plan",
    "audit",
    "compare",
    "equivalence",
    "plan",
    "render",
    "run_audit",
]
