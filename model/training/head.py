"""A linear head on the last norm's output, trained with the model."""

from __future__ import annotations

import torch

from ..ops.native import NativeOps
from ..transformer import HookedTransformer
from ..weights.trained import TrainedMatrix, trained_panels


def trained_head(model: HookedTransformer, name: str) -> TrainedMatrix:
    """Returns the head [1, d_model] that `model.trained.values` holds by this name.

    One that is not there begins as zeros. Raises ValueError for a model without `trainable`.
    """
    ops, weights = model.ops, model.trained
    if weights is None or not isinstance(ops, NativeOps) or ops.trained is None:
        raise ValueError(f'{name}: load the model with trainable="full" or "lora"')
    found = weights.target(name)
    if found is None:
        zeros = torch.zeros(1, model.config.d_model, dtype=torch.float32, device="cpu")
        found = trained_panels(zeros, ops.policy)
        weights.add(name, found, ops.trained.add_linear(found))
    assert isinstance(found, TrainedMatrix), "nothing else has this name"
    return found
