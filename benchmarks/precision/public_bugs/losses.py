"""Losses over rows that do not count, and smoothed by another share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ....precision.contract import PrecisionContract
from .bug import PublicBug, Tensor, normal

LOSS = PrecisionContract("cross_entropy")


def _loss(
    x: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    ignored: int = -100,
    reduction: str = "mean",
) -> Tensor:
    return F.cross_entropy(
        x.double(), targets, ignore_index=ignored, label_smoothing=smoothing, reduction=reduction
    ).float()


def _over_all_rows(reduction: str = "mean", **inputs: Any) -> Tensor:
    losses = _loss(**inputs, reduction="none")
    return losses if reduction == "none" else losses.double().mean().float()


def _rest_to_every_class(
    x: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    ignored: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Every class by (1 - smoothing) / V, and the target by the rest besides."""
    if smoothing == 0:
        return _loss(x, targets, smoothing, ignored, reduction)
    logs = F.log_softmax(x.double(), -1)
    own = F.nll_loss(logs, targets, ignore_index=ignored, reduction="none")
    even = -(1 - smoothing) * logs.mean(-1)
    losses = torch.where(targets == ignored, 0.0, (1 - smoothing) * own + even)
    if reduction == "none":
        return losses.float()
    return (losses.sum() / (targets != ignored).sum()).float()


def _unsmoothed(smoothing: float = 0.0, **inputs: Any) -> Tensor:
    return _loss(**inputs)


def _rows(**options: Any) -> dict[str, Any]:
    return {"x": normal(4, 5), "targets": torch.tensor([0, 4, -100, 2]), **options}


BUGS = (
    PublicBug(
        ("eladhoffer/utils.pytorch#4", "open-mmlab/mmsegmentation#886"),
        "a mean loss over ignored rows, too",
        LOSS, _over_all_rows, _loss, _rows,
    ),
    PublicBug(
        ("paiml/aprender#2199",),
        "smoothing that gives every class 1 - smoothing, not smoothing, over V",
        LOSS, _rest_to_every_class, _loss, lambda: _rows(smoothing=0.1),
    ),
    PublicBug(
        ("linkedin/Liger-Kernel#243",),
        "a smoothing that never reaches the loss",
        LOSS, _unsmoothed, _loss, lambda: _rows(smoothing=0.1),
    ),
)  # fmt: skip
