"""Objectives by architecture: the loss of a batch and its gradients.

Everything is written out in the kernels' operations, so no torch reduction decides a bit. Losses
are means over the batch's values.
"""

from collections.abc import Callable

from ..config import TrainConfig
from .batchtopk import BatchTopKObjective, MatryoshkaObjective
from .jumprelu import JumpReLUObjective
from .l1 import GatedObjective, StandardObjective
from .parts import Objective, Outcome, squared_sum
from .topk import TopKObjective

__all__ = ["Objective", "Outcome", "objective_of", "squared_sum"]

_OBJECTIVES: dict[str, Callable[[TrainConfig], Objective]] = {
    "standard": StandardObjective,
    "transcoder": StandardObjective,
    "skip_transcoder": StandardObjective,
    "topk": TopKObjective,
    "topk_transcoder": TopKObjective,
    "topk_skip_transcoder": TopKObjective,
    "batchtopk": BatchTopKObjective,
    "matryoshka_batchtopk": MatryoshkaObjective,
    "jumprelu": JumpReLUObjective,
    "jumprelu_transcoder": JumpReLUObjective,
    "jumprelu_skip_transcoder": JumpReLUObjective,
    "gated": GatedObjective,
}


def objective_of(config: TrainConfig) -> Objective:
    """Returns the objective of an architecture."""
    return _OBJECTIVES[config.architecture](config)
