"""The records of matrix products, convolutions and lookups, with checks and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import Inputs, InputsError, broadcasts, check_number, checked_tensor, mismatch
from ..operation import Axes, Eager, Native, Operation, Scaling, Seeded, WrongFormula
from ..seeded import SeededDraw
from . import bound, program, real, wrong

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check(op: str, inputs: dict[str, Any]) -> None:
    a, b = checked_tensor(op, inputs, "a", 2), checked_tensor(op, inputs, "b", 2)
    if a.shape[-1] != b.shape[-2] or not broadcasts(a.shape[:-2], b.shape[:-2]):
        raise mismatch(op, inputs, "a", "b")
    if inputs["bias"] is not None and checked_tensor(op, inputs, "bias").shape != b.shape[-1:]:
        raise mismatch(op, inputs, "b", "bias")


def _roundings(inputs: Inputs) -> int:
    return int(inputs["a"].numel() * inputs["b"].shape[-1])


def _ordinary(draw: SeededDraw) -> dict[str, Any]:
    return {"a": draw.normal(8, 320), "b": draw.normal(320, 48), "bias": draw.normal(48)}


def _vanishing_terms(draw: SeededDraw) -> dict[str, Any]:
    """Just above the middle of two stored numbers, by what the last terms add up to."""
    n = 2048
    root = math.sqrt(0.75 * draw.accumulate.unit_roundoff)
    a = torch.full((1, n), root, dtype=torch.float64)
    a[0, :2] = torch.tensor([1.0, draw.format.unit_roundoff])
    b = torch.full((n, 1), root, dtype=torch.float64)
    b[:2] = 1.0
    return {"a": draw.stored(a), "b": draw.stored(b)}


def _short_sums(draw: SeededDraw) -> dict[str, Any]:
    """Inputs whose short sums leave too little to reach across the bits of a second rounding."""
    return {"a": draw.normal(16, 16), "b": draw.normal(16, 64)}


def _subnormal(draw: SeededDraw) -> dict[str, Any]:
    return {"a": draw.tiny[None], "b": draw.full((1,), 1.0)[None]}


def _overflowing(draw: SeededDraw) -> dict[str, Any]:
    return {"a": draw.largest[None], "b": draw.full((1,), 2.0)[None]}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


MATMUL = Operation(
    name="matmul",
    arguments=("a", "b"),
    optional=("bias",),
    cast_points=("inputs", "product", "output"),
    reduces=True,
    multiplies=True,
    fuses=True,
    check=_check,
    program=program.matmul,
    real=real.matmul,
    bound=bound.matmul_bound,
    spread=bound.matmul_spread,
    roundings=_roundings,
    axes=Axes({"a": "mk", "b": "kn", "bias": "n"}, "mn", "mn", "k"),
    scalings=(Scaling({"a": 1, "bias": 1}, 1), Scaling({"b": 1, "bias": 1}, 1)),
    native=Native(order="blocked:256", bf16_order="pairs:32:256"),
    eager=Eager(flushes=True),
    ordinary=_ordinary,
    separating={
        "flush_to_zero": _subnormal,
        "reordered_reduction": _vanishing_terms,
        "other_overflow": _overflowing,
        "double_rounding": _short_sums,
    },
    drawings=_drawings,
)


def _check_conv1d(op: str, inputs: dict[str, Any]) -> None:
    x, weight = checked_tensor(op, inputs, "x", 3), checked_tensor(op, inputs, "weight", 3)
    for name, default in (("stride", 1), ("dilation", 1), ("groups", 1)):
        inputs[name] = default if inputs[name] is None else int(inputs[name])
        if inputs[name] < 1:
            raise InputsError(f"{op}: {name}={inputs[name]} must be at least 1")
    padding = inputs["padding"]
    pair = (padding, padding) if isinstance(padding, int) else tuple(padding or (0, 0))
    if len(pair) != 2 or min(pair) < 0:
        raise InputsError(f"{op}: padding={padding!r}: a number, or one for each end")
    inputs["padding"], groups = pair, inputs["groups"]
    if x.ndim != 3 or weight.ndim != 3 or x.shape[1] != weight.shape[1] * groups:
        raise mismatch(op, inputs, "x", "weight")
    if weight.shape[0] % groups:
        raise InputsError(f"{op}: {weight.shape[0]} filters in {groups} groups")
    if x.shape[-1] + sum(pair) < inputs["dilation"] * (weight.shape[-1] - 1) + 1:
        raise InputsError(f"{op}: the window is longer than the {x.shape[-1]} padded positions")
    if inputs["bias"] is not None and checked_tensor(op, inputs, "bias").shape != weight.shape[:1]:
        raise mismatch(op, inputs, "weight", "bias")


def _as_windows(factors: Seeded) -> Seeded:
    """Positions for rows, one tap, channels for terms."""

    def seeded(draw: SeededDraw) -> dict[str, Any]:
        product = factors(draw)
        inputs = {"x": product["a"].mT[None], "weight": product["b"].mT[..., None]}
        return inputs | ({"bias": product["bias"]} if "bias" in product else {})

    return seeded


def _causal(draw: SeededDraw) -> dict[str, Any]:
    return {"x": draw.normal(2, 3, 16), "weight": draw.normal(4, 3, 4), "padding": (3, 0)}


def _conv1d_roundings(inputs: Inputs) -> int:
    return int(inputs["x"].numel() * inputs["weight"].numel())


CONV1D = Operation(
    name="conv1d",
    arguments=("x", "weight"),
    optional=("bias", "stride", "padding", "dilation", "groups"),
    cast_points=("inputs", "product", "output"),
    reduces=True,
    multiplies=True,
    fuses=True,
    check=_check_conv1d,
    program=program.conv1d,
    real=real.conv1d,
    bound=bound.conv1d_bound,
    spread=bound.conv1d_spread,
    roundings=_conv1d_roundings,
    axes=Axes({"x": "mcs", "weight": "ock", "bias": "o"}, "mop", "mo", ""),
    scalings=(Scaling({"x": 1, "bias": 1}, 1), Scaling({"weight": 1, "bias": 1}, 1)),
    eager=Eager(flushes=True),
    wrong=(
        WrongFormula("centred_padding", "pads both ends where one is padded", wrong.centred),
        WrongFormula("flipped_filters", "reads the filters backwards", wrong.flipped),
    ),
    ordinary=_as_windows(_ordinary),
    separating={
        **{name: _as_windows(factors) for name, factors in MATMUL.separating.items()},
        "centred_padding": _causal,
        "flipped_filters": _causal,
    },
    drawings=_drawings,
)


def _check_embedding(op: str, inputs: dict[str, Any]) -> None:
    weight, ids = checked_tensor(op, inputs, "weight", 2), inputs["ids"]
    if weight.ndim != 2 or not isinstance(ids, Tensor) or ids.dtype != torch.int64:
        raise InputsError(f"{op}: weight must be [vocabulary, width], and ids int64")
    strangers = (ids < 0) | (ids >= len(weight))
    if bool(strangers.any()):
        raise InputsError(f"{op}: id {int(ids[strangers][0])} is no row of weight")
    if inputs["scale"] is not None:
        check_number(op, inputs, "scale", 1.0, above=-math.inf)


def _lookup(draw: SeededDraw) -> dict[str, Any]:
    """Gemma's scale, the root of a width of 3072, which no format of 16 bits holds."""
    return {"ids": torch.arange(8), "weight": draw.normal(8, 320), "scale": math.sqrt(3072)}


EMBEDDING = Operation(
    name="embedding",
    arguments=("ids", "weight"),
    optional=("scale",),
    cast_points=("scale", "output"),
    every_step_cast=True,
    check=_check_embedding,
    program=program.embedding,
    real=real.embedding,
    bound=bound.embedding_bound,
    spread=bound.embedding_spread,
    axes=Axes({"ids": "m", "weight": "vd"}, "md", "md", ""),
    scalings=(Scaling({"weight": 1}, 1),),
    eager=Eager(casts=("scale",)),
    ordinary=_lookup,
    separating={
        "flush_to_zero": lambda draw: {"ids": torch.tensor([0]), "weight": draw.tiny[None]},
        "other_overflow": lambda draw: {
            "ids": torch.tensor([0]), "weight": draw.largest[None], "scale": 2.0
        },
    },
    drawings=_drawings,
)  # fmt: skip
OPERATIONS = (MATMUL, CONV1D, EMBEDDING)
