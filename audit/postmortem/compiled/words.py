"""The findings on compiled blocks in sentences."""

from __future__ import annotations

from .blocks import BlockFindings
from .experiment import CompiledReport

ENOUGH = 0.95
"""The share of positions that one rounding has to bring back to be called the cause."""


def headline(report: CompiledReport) -> str:
    """Returns the finding in one sentence."""
    if broken := report.blocks.violated("strict"):
        return f"With excess precision forbidden, {', '.join(broken)} broke the contract"
    named = report.blocks.violated("excess")
    if not named:
        return "No operation is outside its contract, with excess precision or without"
    return f"Excess precision takes {', '.join(named)} outside the contract; forbidden, none is"


def cause(blocks: BlockFindings) -> str:
    """Returns which rounding brings the bits back, or why no single one does."""
    if not blocks.moved:
        return "this XLA keeps every rounding: the flag moves nothing"
    best = max(blocks.restored, key=blocks.restored.__getitem__)
    if blocks.restored[best] >= ENOUGH:
        return f"one rounding brings {blocks.restored[best]:.1%} of the positions back: {best}"
    return (
        f"no single rounding brings {ENOUGH:.0%} of the positions back ({best}: "
        f"{blocks.restored[best]:.1%}), since XLA leaves out several at once; together these bring "
        f"{blocks.together:.1%} back, and none can be left out: {', '.join(blocks.fewest)}"
    )
