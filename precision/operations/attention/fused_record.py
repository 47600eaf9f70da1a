"""The records of attention in one with what somebody fused into it, and their checks."""

from __future__ import annotations

from typing import Any

import torch

from ...inputs import checked_tensor, mismatch
from ..norms.record import RMS_NORM
from ..operation import Axes, Operation
from ..rope.record import ROPE
from . import fused_program
from .record import ATTENTION

_SOFTMAX = ("exponentials", "probabilities")
_ROTATION = ("theta", "inv_freq", "attention_factor")
_OPTIONS = ("scale", "causal", "window", "past", "cap")
_ELSE = tuple(name for name in ATTENTION.optional if name not in _OPTIONS)


def _check_fused(op: str, inputs: dict[str, Any]) -> None:
    ATTENTION.check(op, inputs)
    inputs["group"] = inputs["q"].shape[-3] // inputs["k"].shape[-3]


def _check_rotated(op: str, inputs: dict[str, Any]) -> None:
    inputs.update(dict.fromkeys(_ELSE))
    _check_fused(op, inputs)
    _add_rotations(op, inputs, inputs["q"].shape, inputs["k"].shape[-2])


def _check_block(op: str, inputs: dict[str, Any]) -> None:
    x = checked_tensor(op, inputs, "x", 2)
    q, k, v, o = (checked_tensor(op, inputs, name, 2) for name in "qkvo")
    d_head, n_keys = int(inputs["d_head"]), x.shape[-2]
    inner = {q.shape[-2], k.shape[-2], v.shape[-2], x.shape[-1]}
    whole = all(w.shape[-1] % d_head == 0 for w in (q, k, v))
    if len(inner) > 1 or k.shape != v.shape or o.shape[-2] != q.shape[-1] or not whole:
        raise mismatch(op, inputs, "x", "q", "k", "v", "o")
    for name in ("q", "k"):
        norm = {"x": x.new_zeros(1, d_head), "weight": inputs[f"{name}_norm"], "eps": inputs["eps"]}
        RMS_NORM.check(op, norm)
        inputs["eps"] = norm["eps"]
    heads = {name: x.new_zeros(w.shape[-1] // d_head, n_keys, d_head) for name, w in
             (("q", q), ("k", k), ("v", v))}  # fmt: skip
    heads["q"] = heads["q"][:, int(inputs["past"] or 0) :]
    attended = {name: inputs[name] for name in _OPTIONS} | dict.fromkeys(_ELSE) | heads
    _check_fused(op, attended)
    inputs.update({name: value for name, value in attended.items() if name not in heads})
    _add_rotations(op, inputs, heads["q"].shape, n_keys)


def _add_rotations(op: str, inputs: dict[str, Any], q_shape: torch.Size, n_keys: int) -> None:
    """Adds the inputs of RoPE's program; keys stand from 0 on, queries from `past`."""
    n_queries, d_head = q_shape[-2:]
    first = inputs["past"]
    for name, positions in (
        ("rope_q", torch.arange(first, first + n_queries)),
        ("rope_k", torch.arange(n_keys)),
    ):
        rope = {each: inputs[each] for each in _ROTATION} | dict.fromkeys(("cos", "sin"))
        rope |= {"x": torch.zeros(len(positions), d_head), "positions": positions}
        ROPE.check(op, rope)
        inputs[name] = rope


_HEADS = {"q": "htd", "k": "gsd", "v": "gsd"}
UNITS = (
    Operation(
        name="fused_attention",
        arguments=ATTENTION.arguments,
        optional=ATTENTION.optional,
        infinite=ATTENTION.infinite,
        cast_points=(*_SOFTMAX, "output"),
        alternatives=("exponentials",),
        reduces=True,
        check=_check_fused,
        program=fused_program.fused_attention,
        axes=ATTENTION.axes,
    ),
    Operation(
        name="rotated_attention",
        arguments=ATTENTION.arguments,
        optional=(*_OPTIONS, *_ROTATION),
        cast_points=("tables", "products", "rotated", *_SOFTMAX, "output"),
        alternatives=("exponentials",),
        reduces=True,
        check=_check_rotated,
        program=fused_program.rotated_attention,
        axes=Axes(_HEADS, "htd", "", ""),
    ),
    Operation(
        name="attention_block",
        arguments=("x", "q", "k", "v", "o", "d_head"),
        optional=(
            *(f"{name}_bias" for name in "qkvo"), "q_norm", "k_norm", "eps", *_OPTIONS, *_ROTATION
        ),
        cast_points=(
            "projected", "normalized", "tables", "products", "rotated", *_SOFTMAX, "attended",
            "output",
        ),
        alternatives=("exponentials",),
        reduces=True,
        check=_check_block,
        program=fused_program.attention_block,
        axes=Axes({"x": "sd", "o": "in", "o_bias": "n"}, "tn", "n", ""),
    ),
)  # fmt: skip
"""One call of attention, with RoPE in it, and with its projections, too."""
