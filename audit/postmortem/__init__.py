"""The sampling faults of a published postmortem, simulated beside the exact sampler.

See docs/postmortem.md.
"""

from .approximate_top_k import approx_top_k, approx_top_k_losing_tail, n_bins
from .excess_precision import excess_precision
from .experiment import Rate, run_postmortem, shipped_prompts
from .naive_sampler import Candidates, exact_top_k, naive_candidates

__all__ = [
    "Candidates",
    "Rate",
    "approx_top_k",
    "approx_top_k_losing_tail",
    "exact_top_k",
    "excess_precision",
    "n_bins",
    "naive_candidates",
    "run_postmortem",
    "shipped_prompts",
]
