"""Evaluation harnesses run on bitlens's models: lm-evaluation-harness and Inspect.

Both know a model named "bitlens": lm-evaluation-harness once `lm_eval_model` was imported (the
extra `lm-eval`), Inspect by an entry point (`inspect_provider`, the extra `inspect`). This module
needs neither. docs/evaluation.md shows their use.
"""

from .continuations import Continuation, ContinuationScore, ContinuationScorer
from .sample_seed import sample_seed

__all__ = ["Continuation", "ContinuationScore", "ContinuationScorer", "sample_seed"]
