"""How probes are chosen, fitted and judged: one protocol, fixed before anything is looked at."""

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
