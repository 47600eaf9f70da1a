"""The golden cases of gradients, by the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bitlens.model.gradients import kernels
from bitlens.model.ops import kernels as forward

from .cases import DTYPES, Case, specials

KINDS: Any = ("silu", "gelu_tanh")
Outputs = tuple[torch.Tensor, ...]


def _scaled(case: Case) -> Outputs:
    x = case.activations(0, case.n)
    return (forward.scaled(x, case.real, DTYPES[case.out]),)


def _normalize(case: Case) -> Outputs:
    x, dn = (case.centered(stream, case.rows, case.k) for stream in (0, 1))
    scale = forward.rms_scale(x, case.real)
    dx, dscale = kernels.normalize_backward(dn, x, scale)
    of_scale = kernels.rms_scale_backward(dscale, x, scale)
    return (torch.cat([dscale, dx, of_scale], dim=1),)


def _rms_norm(case: Case) -> Outputs:
    weight = case.centered(0, case.k)
    shape = (case.rows, case.k)
    x = case.centered(1, *shape) if case.flag == 1 else case.activations(1, *shape)
    dy = case.activations(2, *shape)
    return (kernels.rms_norm_backward(dy, x, weight, case.real),)


def _softmax(case: Case) -> Outputs:
    scores = case.centered(0, case.n) * 20.0
    if case.flag == 1:
        scores[::3] = -torch.inf
    return (kernels.softmax_backward(forward.softmax(scores), case.centered(1, case.n)),)


def _gated_act(case: Case) -> Outputs:
    gate = case.centered(0, case.n) * case.real
    gate[: len(specials())] = specials()
    up, dpost = case.activations(1, case.n), case.activations(2, case.n)
    gate = gate.to(DTYPES[case.act])
    return (torch.stack(kernels.gated_act_backward(KINDS[case.flag], gate, up, dpost), dim=1),)


def _soft_cap(case: Case) -> Outputs:
    cap = float(case.k)
    y = forward.soft_cap(case.centered(0, case.n) * case.real, cap)
    return (kernels.soft_cap_backward(case.centered(1, case.n), y, cap),)


CHECKS: dict[str, Callable[[Case], Outputs]] = {
    "scaled": _scaled,
    "normalize_backward": _normalize,
    "rms_norm_backward": _rms_norm,
    "softmax_backward": _softmax,
    "gated_act_backward": _gated_act,
    "soft_cap_backward": _soft_cap,
}
