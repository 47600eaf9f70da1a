"""Bound and condition of Adam's step."""

from __future__ import annotations

import torch

from ...arithmetic.rounding_model import RoundingModel

Tensor = torch.Tensor

_OF_POWERS = 2.0**-40
"""What fp64 loses of 1 - beta^t at most, relatively, for betas up to 0.9999 and t up to 1000."""


def adam_step_bound(
    model: RoundingModel,
    y: Tensor,
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    decoupled: bool,
    result: str,
) -> Tensor:
    p, g, m, v = (x.double() for x in (parameter, gradient, first, second))
    lost = model.flushed(p) + model.flushed(g) + model.flushed(m) + model.flushed(v)
    g_error = lost + 0.0
    if decay and not decoupled:
        size = g.abs() + abs(decay) * p.abs()
        g, g_error = g + decay * p, lost + model.steps(4) * (size + lost) + model.underflow
    new1, new2 = 1 - beta1, 1 - beta2

    reach = m.abs() * (beta1 + 2 * new1) + 2 * new1 * (g.abs() + g_error)
    m_new = beta1 * m + new1 * g
    m_error = new1 * g_error + lost + model.steps(5) * reach + 2 * model.underflow
    m_error = model.cast("first", m_new, m_error)
    if result == "first":
        return model.cast("output", y, model.within_range(m_error, reach))

    v_new = beta2 * v + new2 * g.square()
    v_error = new2 * (2 * g.abs() * g_error + g_error.square()) + lost
    v_error = v_error + model.steps(6) * (v_new + v_error) + (2 + g.abs()) * model.underflow
    v_reach = v_new + v_error + (g.abs() + g_error).square()
    v_error = model.cast("second", v_new, model.within_range(v_error, v_reach))
    if result == "second":
        return model.cast("output", y, v_error)

    error = _moved_error(
        model, (m_new, m_error), (v_new, v_error), rate / (1 - beta1**step), 1 - beta2**step, eps
    )
    error = error + model.steps(4) * p.abs() + lost
    error = error + model.steps(1) * (y.abs() + error) + 2 * model.underflow
    return model.cast("output", y, model.within_range(error, reach + y.abs() + error))


def _moved_error(
    model: RoundingModel,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    rate: float,
    rest: float,
    eps: float,
) -> Tensor:
    """The update's error: a root errs by the root of an error, or by its share of twice itself."""
    (m, m_error), (v, v_error) = first, second
    root = (v / rest).sqrt()
    by_share = torch.where(v > 0, v_error / v.clamp(min=1e-320) * root, torch.inf)
    root_error = torch.minimum((v_error / rest).sqrt(), by_share)
    root_error = root_error + (model.steps(4) + model.function + _OF_POWERS) * (root + root_error)
    denominator = root + eps
    error = root_error + model.steps(2) * (denominator + root_error) + 2 * model.underflow
    left = denominator - error
    size = m.abs() + m_error
    quotient = torch.where(left > 0, size / left, torch.inf)
    exact = m.abs() / denominator
    moved = m_error / left.clamp(min=1e-320) + exact * error / left.clamp(min=1e-320)
    moved = torch.where(left > 0, moved, torch.inf)
    total = rate * (moved + (model.steps(5) + _OF_POWERS) * quotient)
    scaled = model.within_range(total, rate * size / denominator.clamp(max=1.0))
    lost = torch.where(left > 0, (1 + rate + rate / left.clamp(min=1e-320)) * model.underflow, 0.0)
    return torch.where(m_error + m.abs() == 0, 0.0, scaled.nan_to_num(torch.inf)) + lost


def adam_step_spread(
    y: Tensor,
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    decoupled: bool,
    result: str,
) -> Tensor:
    """Sums what the parameter, the gradient and the first moment move the result by."""
    p, g, m, v = (x.double() for x in (parameter, gradient, first, second))
    if not decoupled:
        g = g + decay * p
    if result == "first":
        return beta1 * m.abs() + (1 - beta1) * g.abs()
    v_new = beta2 * v + (1 - beta2) * g.square()
    if result == "second":
        return v_new
    denominator = (v_new / (1 - beta2**step)).sqrt() + eps
    size = (beta1 * m.abs() + (1 - beta1) * g.abs()) / (1 - beta1**step)
    return p.abs() + rate * size / denominator
