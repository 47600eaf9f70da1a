"""Whether two models are the same: tensors, config, tokenizer and chat template, before any run."""

from .compare import compare_checkpoints
from .resident import resident_checkpoint
from .result import CheckpointComparison, TensorDifference

__all__ = [
    "CheckpointComparison",
    "TensorDifference",
    "compare_checkpoints",
    "resident_checkpoint",
]
