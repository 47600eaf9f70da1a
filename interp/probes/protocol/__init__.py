"""One protocol, fixed before anything is looked at, to choose, fit and judge probes."""

from .choice import Choice, ProbeConfig, default_hooks
from .evaluate import evaluate_probe
from .train import TrainedProbe, train_probe

__all__ = [
    "Choice",
    "ProbeConfig",
    "TrainedProbe",
    "default_hooks",
    "evaluate_probe",
    "train_probe",
]
