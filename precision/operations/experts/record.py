"""The record of the gate of experts, with its check and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import InputsError, check_number, checked_tensor, mismatch
from ..operation import Axes, Operation, WrongFormula
from ..seeded import SeededDraw
from ..softmax.record import vanishing_scores
from . import bound, program, real, wrong

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check(op: str, inputs: dict[str, Any]) -> None:
    x, k = checked_tensor(op, inputs, "x"), inputs["k"]
    if not isinstance(k, int) or not 1 <= k <= x.shape[-1]:
        raise InputsError(f"{op}: k={k!r} must be from 1 to the {x.shape[-1]} experts")
    inputs["score"] = inputs["score"] or "softmax"
    if inputs["score"] not in ("softmax", "sigmoid"):
        raise InputsError(f"{op}: score={inputs['score']!r}: use 'softmax' or 'sigmoid'")
    inputs["renormalize"] = bool(inputs["renormalize"])
    check_number(op, inputs, "factor", 1.0, above=-math.inf)
    scores = _choice(op, inputs)
    ranked = torch.sort(scores, dim=-1, descending=True, stable=True)
    chosen = torch.zeros(x.shape, dtype=torch.bool).scatter(-1, ranked.indices[..., :k], True)
    tie = torch.zeros((*x.shape[:-1], 1), dtype=torch.bool)
    if k < x.shape[-1]:
        last, after = ranked.values[..., k - 1 : k], ranked.values[..., k : k + 1]
        tie = last - after <= (0.0 if inputs["bias"] is None else _FP64_ERROR * (1 + last.abs()))
    inputs.update(chosen=chosen, undecided=tie.expand(x.shape))


_FP64_ERROR = 2.0**-48
"""More than fp64 may lose of a score, as most are below 1, and of its sum with a bias."""


def _choice(op: str, inputs: dict[str, Any]) -> Tensor:
    """Returns the values that experts are chosen by: logits, or scores with a bias added."""
    x = inputs["x"].double()
    if inputs["bias"] is None:
        return x  # type: ignore[no-any-return]
    bias = checked_tensor(op, inputs, "bias")
    if bias.shape != x.shape[-1:]:
        raise mismatch(op, inputs, "x", "bias")
    scores = x.softmax(-1) if inputs["score"] == "softmax" else x.sigmoid()
    return scores + bias.double()  # type: ignore[no-any-return]


def _biased(draw: SeededDraw) -> dict[str, Any]:
    bias = draw.normal(8)
    return _scores(draw, factor=2.5, bias=bias)


def _scores(draw: SeededDraw, **options: Any) -> dict[str, Any]:
    return {"x": draw.normal(512, 8), "k": 2, "score": "sigmoid", "renormalize": True, **options}


def _small_score(draw: SeededDraw) -> dict[str, Any]:
    """The score of one expert of two, between 0 and the smallest normal number."""
    small = math.log(0.75 * draw.format.smallest_normal)
    x = draw.stored(torch.tensor([[0.0, small]], dtype=torch.float64))
    return {"x": x, "k": 2, "renormalize": False, "score": "sigmoid"}


def _many_small(draw: SeededDraw) -> dict[str, Any]:
    """Scores of which all but a few vanish one by one beside the sum, and not together."""
    x = vanishing_scores(draw, 32)
    return {"x": x, "k": x.shape[-1], "renormalize": True}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


MOE_GATE = Operation(
    name="moe_gate",
    arguments=("x", "k"),
    optional=("score", "renormalize", "factor", "bias"),
    cast_points=("scores", "weights", "output"),
    reduces=True,
    check=_check,
    program=program.moe_gate,
    real=real.moe_gate,
    bound=bound.moe_gate_bound,
    spread=bound.moe_gate_spread,
    axes=Axes({"x": "md", "bias": "d"}, "md", "m", ""),
    wrong=(
        WrongFormula("gates_are_logits", "gives logits for scores", wrong.gates_are_logits),
        WrongFormula(
            "other_renormalization",
            "renormalises where it should not, and not where it should",
            wrong.other_renormalization,
        ),
        WrongFormula("bias_in_weights", "weighs experts by biased scores", wrong.bias_in_weights),
        WrongFormula("gate_bias_ignored", "chooses experts without the bias", wrong.without_bias),
    ),
    ordinary=lambda draw: _scores(draw, factor=2.5),
    separating={
        "flush_to_zero": _small_score,
        "reordered_reduction": _many_small,
        "bias_in_weights": _biased,
        "gate_bias_ignored": _biased,
        "gates_are_logits": lambda draw: _scores(draw, renormalize=False),
    },
    drawings=_drawings,
)


OPERATIONS = (MOE_GATE,)
