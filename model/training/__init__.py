"""Training on the kernels that answer: what is trained is, bit for bit, what was sampled."""

from ..gradients.token_logprob import token_logprob
from ..weights.low_rank_settings import LowRank
from ..weights.trained import TrainedWeights
from . import advantages, losses
from .checkpoint import load_weights
from .config import TrainConfig
from .export import export
from .reach import loss_by_position, reach, retrieval
from .reward_model import RewardModel
from .rollout import Rollouts, rollout
from .train import TrainRun, train

__all__ = [
    "LowRank",
    "RewardModel",
    "Rollouts",
    "TrainConfig",
    "TrainRun",
    "TrainedWeights",
    "advantages",
    "export",
    "load_weights",
    "loss_by_position",
    "losses",
    "reach",
    "retrieval",
    "rollout",
    "token_logprob",
    "train",
]
