"""The records of attention and of its soft cap, with their checks and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import (
    Inputs,
    InputsError,
    broadcasts,
    check_number,
    check_positive,
    check_x,
    checked_tensor,
    mismatch,
)
from ..operation import Axes, Eager, Native, Operation, Scaling, WrongFormula
from ..seeded import SeededDraw
from ..softmax.record import LARGE_TERMS, vanishing_scores
from . import program, real, wrong
from .bound import attention_bound, attention_spread, soft_cap_bound, soft_cap_spread
from .visible import visible_keys

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check(op: str, inputs: dict[str, Any]) -> None:
    q, k, v = (checked_tensor(op, inputs, name, 3) for name in "qkv")
    heads_fit = k.shape[-3] > 0 and q.shape[-3] % k.shape[-3] == 0
    if not (heads_fit and k.shape[:-1] == v.shape[:-1] and q.shape[-1] == k.shape[-1]):
        raise mismatch(op, inputs, "q", "k", "v")
    if q.shape[:-3] != k.shape[:-3]:
        raise mismatch(op, inputs, "q", "k")
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    check_number(op, inputs, "scale", 1 / math.sqrt(q.shape[-1]), above=-math.inf)
    if inputs["cap"] is not None:
        check_positive(op, inputs, "cap")
    causal, window, past = inputs["causal"], inputs["window"], inputs["past"]
    causal = False if causal is None else bool(causal)
    if window is not None and (not causal or window < 1):
        raise InputsError(f"attention: window={window} needs causal=True and at least 1 key")
    past = n_keys - n_queries if past is None else int(past)
    visible = visible_keys(n_queries, n_keys, causal=causal, window=window, past=past)
    scores = torch.Size([*q.shape[:-1], n_keys])
    visible = _with_masks(op, inputs, visible, scores)
    for name in ("sinks", "slopes"):
        per_head = inputs[name]
        if per_head is not None and checked_tensor(op, inputs, name).shape != q.shape[-3:-2]:
            raise mismatch(op, inputs, "q", name)
    if inputs["empty"] not in (None, "zero", "mean"):
        raise InputsError(f"{op}: empty={inputs['empty']!r}: use 'zero', 'mean' or leave it out")
    bare = ~visible.any(-1, keepdim=True)
    if inputs["sinks"] is not None:
        bare = torch.zeros_like(bare)
    elif inputs["empty"] is not None:
        visible = visible | bare
    behind = torch.arange(n_keys) - (torch.arange(n_queries)[:, None] + past)
    inputs.update(causal=causal, past=past, visible=visible, bare=bare, behind=behind.double())


def _with_masks(op: str, inputs: dict[str, Any], visible: Tensor, scores: torch.Size) -> Tensor:
    """The visible keys less those that a mask hides, or a bias of -inf."""
    mask, bias = inputs["mask"], inputs["bias"]
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.is_floating_point():
            raise InputsError(f"{op}: mask must be bool, True where a key is seen; a bias is added")
        if not broadcasts(mask.shape, scores, into=True):
            raise InputsError(f"{op}: mask {list(mask.shape)} does not fit scores {list(scores)}")
        visible = visible & (mask != 0)
    if bias is not None:
        if not broadcasts(checked_tensor(op, inputs, "bias").shape, scores, into=True):
            raise InputsError(f"{op}: bias {list(bias.shape)} does not fit scores {list(scores)}")
        hides = bias.double() == -torch.inf
        visible = visible & ~hides
        inputs["bias"] = torch.where(hides, torch.zeros_like(bias), bias)
    return visible


def _check_soft_cap(op: str, inputs: dict[str, Any]) -> None:
    check_x(op, inputs)
    check_positive(op, inputs, "cap")


def _roundings(inputs: Inputs) -> int:
    return int(inputs["q"].numel() * inputs["k"].shape[-2] * 3)


def _ordinary(draw: SeededDraw) -> dict[str, Any]:
    keys, values = draw.normal(2, 33, 32), draw.normal(2, 33, 32)
    return {"q": draw.normal(4, 20, 32), "k": keys, "v": values, "causal": True}


def _subnormal(draw: SeededDraw) -> dict[str, Any]:
    zero = draw.full((1,), 0.0)[None, None]
    return {"q": zero, "k": zero, "v": draw.tiny[None, None]}


def _vanishing_terms(draw: SeededDraw) -> dict[str, Any]:
    heads, width = 8, 32
    scores = vanishing_scores(draw, heads)[..., None]
    values = draw.normal(heads, scores.shape[1], width)
    values[:, LARGE_TERMS:] = 0
    keys = torch.cat([scores, torch.zeros_like(scores).expand(-1, -1, width - 1)], -1)
    query = draw.full((heads, 1, width), 1.0)
    return {"q": query, "k": keys, "v": values, "scale": 1.0, "causal": False}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


ATTENTION = Operation(
    name="attention",
    arguments=("q", "k", "v"),
    optional=(
        "scale",
        "causal",
        "window",
        "past",
        "cap",
        "mask",
        "bias",
        "sinks",
        "slopes",
        "empty",
    ),
    infinite=("bias",),
    cast_points=("inputs", "scores", "scaled", "exponentials", "probabilities", "output"),
    alternatives=("exponentials",),
    reduces=True,
    multiplies=True,
    computed_factor="probabilities",
    fuses=True,
    check=_check,
    implied=("causal", "window", "past", "mask"),
    program=program.attention,
    real=real.attention,
    bound=attention_bound,
    spread=attention_spread,
    roundings=_roundings,
    axes=Axes({"q": "htd", "k": "gsd", "v": "gsd"}, "htd", "", "sd"),
    scalings=(Scaling({"v": 1}, 1), Scaling({"q": 1, "k": -1}, 0)),
    native=Native(order="blocked:256"),
    eager=Eager(casts=("scores", "scaled", "probabilities"), flushes=True),
    wrong=(
        WrongFormula(
            "scale_ignored",
            "scales scores by 1 / sqrt(d) whatever is asked for",
            wrong.without_scale,
        ),
        WrongFormula("cap_ignored", "leaves out the soft cap", wrong.without_cap),
        WrongFormula(
            "past_ignored", "takes the queries to stand at the end of the keys", wrong.without_past
        ),
        WrongFormula("bias_scaled", "multiplies the bias by the scale", wrong.scaled_bias),
        WrongFormula("sinks_twice", "counts every sink twice", wrong.sinks_twice),
        WrongFormula("slopes_reversed", "favours distant keys", wrong.reversed_slopes),
        WrongFormula("bare_rows_otherwise", "gives rows without a key another value", wrong.bare),
        WrongFormula("cap_after_mask", "caps masked scores, too", wrong.capped_after_mask),
    ),
    ordinary=_ordinary,
    separating={
        "flush_to_zero": _subnormal,
        "reordered_reduction": _vanishing_terms,
        "scale_ignored": lambda draw: _ordinary(draw) | {"scale": 0.7},
        "cap_ignored": lambda draw: _ordinary(draw) | {"cap": 1.5},
        "past_ignored": lambda draw: _ordinary(draw) | {"past": 5},
        "bias_scaled": lambda draw: _ordinary(draw) | {"bias": draw.normal(20, 33)},
        "sinks_twice": lambda draw: _ordinary(draw) | {"sinks": draw.normal(4)},
        "slopes_reversed": lambda draw: _ordinary(draw) | {"slopes": draw.full((4,), 0.5)},
        "bare_rows_otherwise": lambda draw: (
            _ordinary(draw) | {"mask": torch.arange(20)[:, None] > 0, "empty": "zero"}
        ),
        "cap_after_mask": lambda draw: _ordinary(draw) | {"cap": 1.5},
    },
    drawings=_drawings,
)

SOFT_CAP = Operation(
    name="soft_cap",
    arguments=("x", "cap"),
    cast_points=("quotient", "tanh", "output"),
    check=_check_soft_cap,
    program=program.soft_cap,
    real=real.soft_cap,
    bound=soft_cap_bound,
    spread=soft_cap_spread,
    axes=Axes({"x": "md"}, "md", "md", ""),
    scalings=(Scaling({"x": 1, "cap": 1}, 1),),
    native=Native(function_ulp=1.0, fp32=True),
    eager=Eager(casts=("quotient", "tanh")),
    ordinary=lambda draw: {"x": draw.normal(8, 320), "cap": 3.1},  # no bf16 number
    separating={"flush_to_zero": lambda draw: {"x": draw.tiny, "cap": 1.0}},
    drawings=_drawings,
)
OPERATIONS = (ATTENTION, SOFT_CAP)
