"""The records of softmax, its logarithm, logsumexp and cross entropy; checks, seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import InputsError, check_number, check_x, checked_tensor
from ..operation import Axes, Eager, Native, Operation, WrongFormula
from ..seeded import SeededDraw
from . import program, real, wrong
from .bound import (
    cross_entropy_bound,
    cross_entropy_spread,
    log_softmax_bound,
    log_softmax_spread,
    logsumexp_bound,
    logsumexp_spread,
    softmax_bound,
    softmax_spread,
)

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


LARGE_TERMS = 60


def vanishing_scores(draw: SeededDraw, rows: int) -> Tensor:
    """60 exponentials that add up to a little over 17, then many of which none moves that sum."""
    small = math.log(16 * 0.85 * draw.accumulate.unit_roundoff)
    x = torch.full((rows, 2048), small, dtype=torch.float64)
    x[:, :LARGE_TERMS] = -2 - 10 * draw.uniform(rows, LARGE_TERMS)
    x[:, :17] = 0.0
    return draw.stored(x)


def _subnormal(draw: SeededDraw) -> dict[str, Any]:
    small = 0.75 * draw.format.smallest_normal
    return {"x": draw.stored(torch.tensor([[0.0, math.log(small / 2)]]).double())}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


SOFTMAX = Operation(
    name="softmax",
    arguments=("x",),
    cast_points=("exponentials", "sum", "output"),
    statistics=("sum",),
    reduces=True,
    masked=True,
    check=check_x,
    program=program.softmax,
    real=real.softmax,
    bound=softmax_bound,
    spread=softmax_spread,
    axes=Axes({"x": "md"}, "md", "m", "d"),
    native=Native(order="blocked:256", function_ulp=1.0, fp32=True, stepwise="bf16"),
    ordinary=lambda draw: {"x": draw.normal(8, 320)},
    separating={
        "flush_to_zero": _subnormal,
        "reordered_reduction": lambda draw: {"x": vanishing_scores(draw, 32)},
    },
    drawings=_drawings,
)


def _small_logarithm(draw: SeededDraw) -> dict[str, Any]:
    """-4.5e-5, which fp16 has as a subnormal number."""
    return {"x": draw.stored(torch.tensor([[0.0, -10.0]], dtype=torch.float64))}


def _far_behind(draw: SeededDraw) -> dict[str, Any]:
    """A probability that no format holds."""
    return {"x": draw.stored(torch.tensor([[0.0, -200.0]], dtype=torch.float64))}


def _large_equals(draw: SeededDraw) -> dict[str, Any]:
    """Two logits beside which log 2 is no more than their rounding."""
    return {"x": draw.full((1, 2), 2.0 ** min(20, draw.format.max_exponent))}


LOG_SOFTMAX = Operation(
    name="log_softmax",
    arguments=("x",),
    cast_points=("exponentials", "sum", "logarithm", "output"),
    statistics=("sum", "logarithm"),
    reduces=True,
    masked=True,
    least=2.0**-64,  # 0, or the logarithm of 1 + 2^-23 or more
    check=check_x,
    program=program.log_softmax,
    real=real.log_softmax,
    bound=log_softmax_bound,
    spread=log_softmax_spread,
    axes=Axes({"x": "md"}, "md", "m", "d"),
    eager=Eager(casts=("sum", "logarithm")),  # torch's kernel for CPUs rounds both to storage
    wrong=(
        WrongFormula(
            "log_of_softmax", "takes the logarithm of a probability", wrong.log_of_softmax
        ),
        WrongFormula(
            "log_sum_added_to_maximum",
            "adds the logarithm of the sum to the maximum first",
            wrong.log_sum_added_to_maximum,
        ),
    ),
    ordinary=lambda draw: {"x": draw.normal(2048, 4)},
    separating={
        "flush_to_zero": _small_logarithm,
        "reordered_reduction": lambda draw: {"x": vanishing_scores(draw, 32)},
        "log_of_softmax": _far_behind,
        "log_sum_added_to_maximum": _large_equals,
    },
    drawings=_drawings,
)

LOGSUMEXP = Operation(
    name="logsumexp",
    arguments=("x",),
    cast_points=("exponentials", "sum", "output"),
    statistics=("sum",),
    reduces=True,
    masked=True,
    check=check_x,
    program=program.logsumexp,
    real=real.logsumexp,
    bound=logsumexp_bound,
    spread=logsumexp_spread,
    axes=Axes({"x": "md"}, "m", "m", "d"),
    native=Native(order="blocked:256", function_ulp=1.0, fp32=True),
    ordinary=lambda draw: {"x": draw.normal(2048, 4)},
    separating={
        "flush_to_zero": lambda draw: {"x": draw.tiny[None]},
        "reordered_reduction": lambda draw: {"x": vanishing_scores(draw, 512)},
    },
    drawings=_drawings,
)


def _check_cross_entropy(op: str, inputs: dict[str, Any]) -> None:
    x, targets = checked_tensor(op, inputs, "x", 2), inputs["targets"]
    if x.ndim != 2 or not isinstance(targets, Tensor) or targets.dtype != torch.int64:
        raise InputsError(f"{op}: x must be [rows, classes], and targets int64 [rows]")
    if targets.shape != x.shape[:1]:
        raise InputsError(f"{op}: {list(targets.shape)} targets for x {list(x.shape)}")
    inputs["ignored"] = -100 if inputs["ignored"] is None else int(inputs["ignored"])
    check_number(op, inputs, "smoothing", 0.0, above=0.0)
    if inputs["smoothing"] > 1:
        raise InputsError(f"{op}: smoothing={inputs['smoothing']} must be at most 1")
    inputs["reduction"] = inputs["reduction"] or "mean"
    if inputs["reduction"] not in ("mean", "none"):
        raise InputsError(f"{op}: reduction={inputs['reduction']!r}: use 'mean' or 'none'")
    counted = targets != inputs["ignored"]
    strangers = counted & ((targets < 0) | (targets >= x.shape[1]))
    if bool(strangers.any()):
        raise InputsError(f"{op}: target {int(targets[strangers][0])} is no class and not ignored")
    if inputs["reduction"] == "mean" and not bool(counted.any()):
        raise InputsError(f"{op}: every target is ignored, so there is no mean")
    inputs["counted"] = counted


def _predictions(draw: SeededDraw, **options: Any) -> dict[str, Any]:
    targets = torch.arange(2048) % 4
    return {"x": draw.normal(2048, 4), "targets": targets, "reduction": "none", **options}


def _vanishing_losses(draw: SeededDraw) -> dict[str, Any]:
    """Losses of the likeliest class, whose logit is 0: each is the logarithm of the sum."""
    targets = torch.zeros(512, dtype=torch.int64)
    return {"x": vanishing_scores(draw, 512), "targets": targets, "reduction": "none"}


def _small_loss(draw: SeededDraw) -> dict[str, Any]:
    """4.5e-5, which fp16 has as a subnormal number."""
    x = draw.stored(torch.tensor([[0.0, -10.0]], dtype=torch.float64))
    return {"x": x, "targets": torch.tensor([0]), "reduction": "none"}


def _with_ignored(draw: SeededDraw) -> dict[str, Any]:
    targets = torch.tensor([0, 1, -100, 3])
    return {"x": draw.normal(4, 4), "targets": targets, "reduction": "mean"}


CROSS_ENTROPY = Operation(
    name="cross_entropy",
    arguments=("x", "targets"),
    optional=("smoothing", "ignored", "reduction"),
    cast_points=("exponentials", "sum", "losses", "output"),
    statistics=("sum",),
    reduces=True,
    least=2.0**-64,  # a logarithm of 1 + 2^-23 or more, over fewer rows than 2^41
    check=_check_cross_entropy,
    implied=("ignored",),
    program=program.cross_entropy,
    real=real.cross_entropy,
    bound=cross_entropy_bound,
    spread=cross_entropy_spread,
    axes=Axes({"x": "md", "targets": "m"}, "m", "m", "d"),
    native=Native(order="blocked:256", function_ulp=1.0, fp32=True, stepwise="bf16", output="fp32"),
    wrong=(
        WrongFormula("ignored_counted", "counts ignored rows in the mean", wrong.ignored_in_mean),
        WrongFormula(
            "smoothing_off_by_one",
            "spreads the smoothing over the classes but the target",
            wrong.smoothed_over_others,
        ),
    ),
    ordinary=_predictions,
    separating={
        "flush_to_zero": _small_loss,
        "reordered_reduction": _vanishing_losses,
        "ignored_counted": _with_ignored,
        "smoothing_off_by_one": lambda draw: _predictions(draw, smoothing=0.1),
    },
    drawings=_drawings,
)
OPERATIONS = (SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, CROSS_ENTROPY)
