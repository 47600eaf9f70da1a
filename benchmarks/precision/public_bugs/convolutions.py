"""Convolutions that pad the wrong end, or read every position of a dilated window."""

from __future__ import annotations

import torch.nn.functional as F

from ....precision.contract import PrecisionContract
from .bug import PublicBug, Tensor, normal

CONV = PrecisionContract("conv1d")


def _conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    wide = F.pad(x.double(), padding)
    b = None if bias is None else bias.double()
    return F.conv1d(wide, weight.double(), b, stride, 0, dilation, groups).float()


def _centred(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    left = sum(padding) // 2
    ends = (left, sum(padding) - left)
    return _conv1d(x, weight, bias, stride, ends, dilation, groups)


def _undilated(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """As long as the dilated one, of the last places of the window next to each other."""
    cut = (padding[0] - (dilation - 1) * (weight.shape[-1] - 1), padding[1])
    return _conv1d(x, weight, bias, stride, cut, 1, groups)


def _causal(dilation: int) -> dict[str, object]:
    reach = 2 * dilation
    x, weight = normal(1, 2, 20), normal(2, 2, 3, seed=1)
    return {"x": x, "weight": weight, "padding": (reach, 0), "dilation": dilation}


BUGS = (
    PublicBug(
        ("paarthneekhara/byteNet-tensorflow#5",),
        "a causal convolution padded at both ends",
        CONV, _centred, _conv1d, lambda: _causal(1),
    ),
    PublicBug(
        ("ibab/tensorflow-wavenet#29", "deeplearning4j/deeplearning4j#8476"),
        "a dilated causal convolution over neighbours",
        CONV, _undilated, _conv1d, lambda: _causal(4),
    ),
)  # fmt: skip
