"""Measurements before the first step: limits of outliers, means and scales of every layer.

Shapes: L layers, N rows, d d_model.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from ....model.weights.atomic import write_tensors
from ...activations.read import OUTLIER_FACTOR, read_rows, row_norms
from ...dictionaries import kernels
from ..objectives import squared_sum
from .stream import RowStream

CALIBRATION = "calibration.safetensors"
CALIBRATION_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class Calibration:
    """Statistics of the first tokens.

    Attributes:
        limits: The largest norm of a row that is no outlier's, by hook.
        x_mean: [L, d].
        y_mean: [L, d].
        x_scale: [L], factors with which the variance of an input's dimension is 1 on average.
        y_scale: [L], the same of outputs.
    """

    limits: dict[str, float]
    x_mean: torch.Tensor
    y_mean: torch.Tensor
    x_scale: torch.Tensor
    y_scale: torch.Tensor


def calibrate(stream: RowStream, folder: Path) -> Calibration:
    """Returns the statistics, measured once and kept in the folder from then on."""
    path = folder / CALIBRATION
    if path.exists():
        with safe_open(path, framework="pt") as file:
            limits = json.loads(file.metadata()["limits"])
            names = ("x_mean", "y_mean", "x_scale", "y_scale")
            return Calibration(limits, *(file.get_tensor(name) for name in names))
    found = _measured(stream)
    tensors = {k: v for k, v in vars(found).items() if k != "limits"}
    write_tensors(path, tensors, {"limits": json.dumps(found.limits)})
    return found


def _measured(stream: RowStream) -> Calibration:
    batch = stream.first_tokens(CALIBRATION_TOKENS)
    limits: dict[str, float] = {}
    if stream.config.exclude_outliers:
        for name, rows in read_rows(stream.model, batch, [*stream.inputs, *stream.outputs]).items():
            limits[name] = OUTLIER_FACTOR * float(row_norms(rows).median())
    kept = stream.read(batch, limits)
    n_layers = len(kept.x)
    y = list(kept.y.view(len(kept.y), n_layers, -1).unbind(1))
    x_mean, x_scale = _moments(kept.x)
    y_mean, y_scale = _moments(y)
    return Calibration(limits, x_mean, y_mean, x_scale, y_scale)


def _moments(layers: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Means [L, d] and scales [L] of rows."""
    means, scales = [], []
    for rows in layers:
        mean = kernels.column_sums(rows) / len(rows)
        variance = squared_sum(rows - mean) / rows.numel()
        if not (math.isfinite(variance) and variance > 0):
            raise ValueError("the activations of a layer do not vary, or are not finite")
        means.append(mean)
        scales.append(1 / math.sqrt(variance))
    return torch.stack(means), torch.tensor(scales, dtype=torch.float32, device="cpu")
