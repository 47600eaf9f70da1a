"""`bitlens audit`: one path of a model judged against another on real prompts, in one report."""

from .page import render
from .result import AuditResult
from .run import Plan, audit, run_audit

__all__ = ["AuditResult", "Plan", "audit", "render", "run_audit"]
