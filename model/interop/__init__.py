"""The exact sampler in other people's decoders, and as a judge of other samplers.

`vllm_processor` is imported by vLLM, not here.
"""

from .oracle import OracleReport, judge
from .planned_draws import draws_needed
from .transformers_generate import ExactSampling, exact_sampling

__all__ = ["ExactSampling", "OracleReport", "draws_needed", "exact_sampling", "judge"]
