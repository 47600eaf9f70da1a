"""A real compiler's excess precision in a model's blocks and in a sampler.

See docs/postmortem.md.
"""

from .blocks import BlockFindings, Judged, judge_blocks
from .experiment import CompiledReport, run_compiled
from .samplers import SamplerFindings, judge_samplers

__all__ = [
    "BlockFindings",
    "CompiledReport",
    "Judged",
    "SamplerFindings",
    "judge_blocks",
    "judge_samplers",
    "run_compiled",
]
