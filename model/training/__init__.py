"""Training on the kernels that answer: what is trained is, bit for bit, what was sampled."""

from ..gradients import token_logprob
from .weights import TrainedWeights

__all__ = ["TrainedWeights", "token_logprob"]
