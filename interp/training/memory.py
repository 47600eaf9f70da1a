"""The memory that a training run takes."""

from __future__ import annotations

from collections.abc import Mapping

from ..activations.store import MIXED_ROWS
from .config import TrainConfig

WEIGHT_COPIES = 6
"""The weights, Adam's two moments, the gradients, and what a gradient is made of."""

SELECTED, THRESHOLDED = 2, 8
"""Numbers held for each pre-activation of a batch: where k are selected; where about half of all
features are active at first."""


def training_bytes(config: TrainConfig, widths: Mapping[str, int]) -> int:
    """Returns a bound on what training holds, in bytes, beside the model: the rows that are mixed,
    copies of the weights, and what a batch of pre-activations needs.

    Args:
        widths: The width of each hook that was harvested.
    """
    weights = config.d_sae * (widths[config.hook_name] + widths[config.target_hook])
    rows = MIXED_ROWS * sum(widths.values())
    batch = config.batch_size * config.d_sae * (SELECTED if config.selects_k else THRESHOLDED)
    return 4 * (rows + WEIGHT_COPIES * weights + batch)
