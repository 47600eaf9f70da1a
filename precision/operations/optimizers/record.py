"""The record of Adam's step, with its check and seeded inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...inputs import InputsError, check_number, check_positive, checked_tensor, mismatch
from ..operation import Axes, Operation, WrongFormula
from ..seeded import SeededDraw
from . import bound, program, real, wrong

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

_TENSORS = ("parameter", "gradient", "first", "second")


def _check(op: str, inputs: dict[str, Any]) -> None:
    shapes = {checked_tensor(op, inputs, name).shape for name in _TENSORS}
    if len(shapes) > 1:
        raise mismatch(op, inputs, *_TENSORS)
    if bool((inputs["second"].double() < 0).any()):
        raise InputsError(f"{op}: the second moment is a mean of squares, and not negative")
    if not isinstance(inputs["step"], int) or inputs["step"] < 1:
        raise InputsError(f"{op}: step={inputs['step']!r} counts from 1")
    for name, default in (("rate", 1e-3), ("beta1", 0.9), ("beta2", 0.999), ("decay", 0.0)):
        check_number(op, inputs, name, default, above=0.0)
    check_number(op, inputs, "eps", 1e-8, above=0.0)
    check_positive(op, inputs, "eps")
    if max(inputs["beta1"], inputs["beta2"]) >= 1:
        raise InputsError(f"{op}: both betas must be below 1")
    inputs["decoupled"] = True if inputs["decoupled"] is None else bool(inputs["decoupled"])
    inputs["result"] = inputs["result"] or "parameter"
    if inputs["result"] not in ("parameter", "first", "second"):
        raise InputsError(
            f"{op}: result={inputs['result']!r}: use 'parameter', 'first' or 'second'"
        )


def _step(draw: SeededDraw, **options: Any) -> dict[str, Any]:
    tensors = {name: draw.normal(8, 320) for name in _TENSORS[:3]}
    second = draw.stored(0.5 + draw.uniform(8, 320))
    return {**tensors, "second": second, "step": 2, "rate": 0.1, **options}


def _still(draw: SeededDraw, value: float) -> dict[str, Any]:
    """A parameter that nothing moves."""
    zero = draw.full((1,), 0.0)
    return {
        "parameter": draw.full((1,), value), "gradient": zero, "first": zero, "second": zero,
        "step": 1,
    }  # fmt: skip


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


ADAM_STEP = Operation(
    name="adam_step",
    arguments=(*_TENSORS, "step"),
    optional=("rate", "beta1", "beta2", "eps", "decay", "decoupled", "result"),
    cast_points=("first", "second", "output"),
    check=_check,
    program=program.adam_step,
    real=real.adam_step,
    bound=bound.adam_step_bound,
    spread=bound.adam_step_spread,
    axes=Axes(dict.fromkeys(_TENSORS, "md"), "md", "md", ""),
    wrong=(
        WrongFormula(
            "eps_before_correction",
            "adds eps to a root that is not corrected yet",
            wrong.eps_before_correction,
        ),
        WrongFormula("moments_uncorrected", "corrects no moment", wrong.without_correction),
        WrongFormula("other_decay", "decays the gradient, or not", wrong.other_decay),
    ),
    ordinary=_step,
    separating={
        "flush_to_zero": lambda draw: _still(draw, 0.75 * draw.format.smallest_normal),
        "eps_before_correction": lambda draw: _step(draw, eps=0.1),
        "other_decay": lambda draw: _step(draw, decay=0.1),
    },
    drawings=_drawings,
)
OPERATIONS = (ADAM_STEP,)
