"""Training of dictionaries."""

from .config import TrainConfig
from .memory import training_bytes
from .train import TrainResult, train, train_all
from .trainer import TrainingDiverged

__all__ = [
    "TrainConfig",
    "TrainResult",
    "TrainingDiverged",
    "train",
    "train_all",
    "training_bytes",
]
