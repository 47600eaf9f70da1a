"""The classes of every argument of an operation: what inputs have to show, and some that do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from bitlens.precision.operations import OPERATIONS, validate_inputs

Tensor = torch.Tensor
Inputs = Mapping[str, Any]
Seen = Callable[[Inputs], bool]
BF16 = torch.finfo(torch.bfloat16)


def _base(op: str) -> dict[str, Any]:
    """Ordinary inputs, which the classes' samples replace one by one."""
    x = torch.tensor([[1.0, -0.5, 0.25, 2.0], [0.5, 1.5, -2.0, 1.0]]).bfloat16()
    row = x[0]
    bases: dict[str, dict[str, Any]] = {
        "matmul": {"a": x, "b": x.mT.contiguous()},
        "rms_norm": {"x": x, "weight": row},
        "layer_norm": {"x": x, "weight": row, "bias": row},
        "attention": {
            "q": x[None],
            "k": x[None],
            "v": x[None],
            "causal": True,
            "bias": x[:, :2].contiguous(),
            "sinks": row[:1],
            "slopes": row[:1],
        },
        "rope": {"x": x, "positions": torch.arange(2)},
        "swiglu": {"gate": x, "up": x},
        "soft_cap": {"x": x, "cap": 2.0},
        "cross_entropy": {"x": x, "targets": torch.tensor([0, 3])},
        "group_norm": {"x": x[:, :, None], "groups": 2, "weight": row, "bias": row},
        "conv1d": {"x": x[None], "weight": x[None, :, :2], "bias": row[:1]},
        "embedding": {"ids": torch.tensor([0, 1]), "weight": x},
        "clamped_swiglu": {"gate": x, "up": x},
        "quantize": {"x": x, "scale": x.abs()},
        "dequantize": {"codes": x, "scale": x, "minimum": x},
        "block_scale": {"x": x, "block": 2},
        "moe_gate": {"x": x, "k": 2, "bias": row},
        "rank_sum": {"x": x},
        "adam_step": {
            "parameter": x,
            "gradient": x,
            "first": x,
            "second": x.abs(),
            "step": 1,
        },
        "add": {"a": x, "b": x},
        "mul": {"a": x, "b": x},
    }
    return bases.get(op, {"x": x})


TENSORS = (
    "a",
    "b",
    "bias",
    "x",
    "weight",
    "q",
    "v",
    "gate",
    "up",
    "cos",
    "sin",
    "codes",
    "minimum",
)
TENSORS += ("parameter", "gradient", "first", "second")
TENSORS_OF = {
    "attention": ("k", "sinks", "slopes"),
    "quantize": ("scale",),
    "dequantize": ("scale",),
}
"""Names that are numbers in other operations."""
MAIN = {"matmul": "a", "attention": "v", "swiglu": "gate", "clamped_swiglu": "gate"}
MAIN |= {"dequantize": "codes", "adam_step": "gradient"}
MAIN |= {"add": "a", "mul": "a", "embedding": "weight"}
"""The operand of each operation that is drawn by kinds: x unless named."""

ELEMENTS: dict[str, float] = {
    "zero": 0.0,
    "negative zero": -0.0,
    "the largest": BF16.max,
    "the most negative": -BF16.max,
    "a subnormal": BF16.smallest_normal / 4,
    "-inf": -math.inf,
    "+inf": math.inf,
    "NaN": math.nan,
}


def _has(name: str, element: float) -> Seen:
    def seen(inputs: Inputs) -> bool:
        x = inputs.get(name)
        if x is None:
            return False
        x = x.double()
        if math.isnan(element):
            return bool(x.isnan().any())
        if 0 < element < BF16.smallest_normal:
            return bool(((x != 0) & (x.abs() < BF16.smallest_normal)).any())
        same_sign = x.signbit() == (math.copysign(1, element) < 0)
        return bool(((x == element) & same_sign).any())

    return seen


def _rows(name: str, property_: Callable[[Tensor], Tensor]) -> Seen:
    return lambda inputs: name in inputs and bool(property_(inputs[name].double()).any())


def _far(x: Tensor) -> Tensor:
    spread = x.amax(-1) - x.amin(-1)
    return (x.mean(-1).abs() >= 16 * spread) & (spread > 0)


ROWS: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    "a mean far from its spread": (_far, [128.0, 129.0, 128.0, 129.0]),
    "one value throughout": (lambda x: (x == x[..., :1]).all(-1), [3.0] * 4),
    "all masked": (lambda x: (x == -math.inf).all(-1), [-math.inf] * 4),
    "tiny numbers": (lambda x: (x.abs().amax(-1) < 2e-3) & (x != 0).any(-1), [1e-4] * 4),
}

SCALARS: dict[str, tuple[float, ...]] = {
    "eps": (1e-6, 0.0, 1e-12, 0.1, -1.0),
    "scale": (0.5, 0.0, -0.5, 1.0),
    "cap": (1.0, 0.01, 1000.0, 0.0, -1.0),
    "smoothing": (0.1, 0.0, 1.0, 0.01, -0.1, 1.5),
    "limit": (7.0, 0.5, 0.0),
    "alpha": (1.702, 1.0, 0.0, -1.0),
    "offset": (1.0, 0.0, -0.3),
    "factor": (2.5, 1.0, -0.3),
    "rate": (1e-3, 0.1, 1.0),
    "beta1": (0.9, 0.0, 0.99),
    "beta2": (0.999, 0.0, 0.95),
    "decay": (0.01, 0.0, 0.1),
    "theta": (10000.0, 1.0, 500000.0, 0.5),
    "attention_factor": (1.0, 0.0, 1.25, 0.7, -1.0),
}
ADAM_EPS = (1e-8, 1e-15, 0.1, 0.0)
"""Values of every class of numbers: about the default, zero, small, large, negative."""


def _class_of(value: float) -> str:
    if value <= 0:
        return "zero" if value == 0 else "negative"
    return "small" if value < 1e-7 else "below 0.05" if value < 0.05 else "about 1"


def _number_classes(op: str, name: str, value: float) -> Seen:
    if name not in ("eps", "scale", "cap") or op == "adam_step":
        return lambda inputs: inputs.get(name) == value
    if name == "scale" and op == "embedding":
        return lambda inputs: "scale" in inputs and _class_of(inputs["scale"]) == _class_of(value)
    if name == "scale":  # the default, 1 / sqrt(d), is a class of its own
        return lambda inputs: (
            "scale" in inputs
            and (inputs["scale"] == inputs["q"].shape[-1] ** -0.5) == (value == 0.5)
            and _class_of(inputs["scale"]) == _class_of(value)
        )
    if name == "cap":
        near = (value / 30, value * 30)
        return lambda inputs: "cap" in inputs and near[0] <= inputs["cap"] <= near[1]
    return lambda inputs: (
        "eps" in inputs
        and (_class_of(inputs["eps"]), inputs["eps"] > 0.01) == (_class_of(value), value > 0.01)
    )


def _shape(inputs: Inputs) -> tuple[int, int]:
    return inputs["q"].shape[-2], inputs["k"].shape[-2]


def _hides_whole_rows(inputs: Inputs, empty: str | None = None) -> bool:
    bare = validate_inputs("attention", inputs)["bare"]
    return bool(bare.any()) and (empty is not None or not bool(bare.all()))


# name -> (what has been seen, a change of the base that the check must take)
CHOICES: dict[str, dict[str, tuple[Seen, dict[str, Any]]]] = {
    "causal": {
        "True": (lambda i: i["causal"] is True, {"causal": True}),
        "False": (lambda i: i["causal"] is False, {"causal": False}),
    },
    "window": {
        "none": (lambda i: i["causal"] and "window" not in i, {}),
        "one key": (lambda i: i.get("window") == 1, {"window": 1}),
        "hides a key": (lambda i: "window" in i and i["window"] < _shape(i)[1], {"window": 2}),
        "wider than the keys": (lambda i: i.get("window", 0) >= _shape(i)[1], {"window": 9}),
    },
    "past": {
        "none": (lambda i: "past" not in i, {}),
        "first": (lambda i: i.get("past") == 0 and _shape(i)[1] > _shape(i)[0], {"past": 0}),
        "before the end": (
            lambda i: i["causal"] and "past" in i and i["past"] < _shape(i)[1] - _shape(i)[0],
            {"past": 0},
        ),
        "behind the keys": (
            lambda i: i["causal"] and "past" in i and i["past"] + _shape(i)[0] > _shape(i)[1],
            {"past": 5},
        ),
        "rows that see no key": (_hides_whole_rows, {"window": 1, "past": 1}),
    },
    "positions": {
        "0": (lambda i: "positions" in i and bool((i["positions"] == 0).any()), {}),
        "2^31 - 1": (
            lambda i: "positions" in i and int(i["positions"].max()) == 2**31 - 1,
            {"positions": torch.tensor([0, 2**31 - 1])},
        ),
        "out of order": (
            lambda i: "positions" in i and bool((i["positions"].diff() < 0).any()),
            {"positions": torch.tensor([7, 3])},
        ),
    },
    "inv_freq": {
        "of a scaling": (
            lambda i: any(0 < f < 1 for f in i.get("inv_freq", ())),
            {"inv_freq": (1.0, 0.7)},
        ),
        "0": (lambda i: 0.0 in i.get("inv_freq", ()), {"inv_freq": (1.0, 0.0)}),
        "negative": (lambda i: min(i.get("inv_freq", (0,))) < 0, {"inv_freq": (1.0, -1.0)}),
    },
    "targets": {
        "the last class": (
            lambda i: bool((i["targets"] == i["x"].shape[-1] - 1).any()),
            {"targets": torch.tensor([3, 3])},
        ),
        "ignored": (
            lambda i: bool((i["targets"] == i.get("ignored", -100)).any()),
            {"targets": torch.tensor([0, -100])},
        ),
        "all ignored": (
            lambda i: bool((i["targets"] == i.get("ignored", -100)).all()),
            {"targets": torch.tensor([-100, -100]), "reduction": "none"},
        ),
        "no class": (
            lambda i: bool((i["targets"] >= i["x"].shape[-1]).any()),
            {"targets": torch.tensor([0, 4])},
        ),
    },
    "mask": {
        "none": (lambda i: "mask" not in i, {}),
        "hides some keys": (
            lambda i: "mask" in i and 0 < int((i["mask"] != 0).sum()) < i["mask"].numel(),
            {"mask": torch.tensor([[True, False]])},
        ),
        "hides all keys": (
            lambda i: "mask" in i and not bool(i["mask"].any()),
            {"mask": torch.tensor([[False]])},
        ),
        "of each head": (
            lambda i: "mask" in i and i["mask"].ndim == 3 and i["mask"].shape[0] > 1,
            {"mask": torch.ones(1, 1, 2, dtype=torch.bool)},
        ),
    },
    "empty": {
        "none": (lambda i: "empty" not in i, {}),
        **{
            name: (
                lambda i, name=name: i.get("empty") == name and _hides_whole_rows(i, name),
                {"empty": name},
            )
            for name in ("zero", "mean")
        },
    },
    "k": {
        "one": (lambda i: i["k"] == 1, {"k": 1}),
        "all": (lambda i: i["k"] == i["x"].shape[-1], {"k": 4}),
        "too many": (lambda i: i["k"] > i["x"].shape[-1], {"k": 5}),
    },
    "score": {
        "sigmoid": (lambda i: i.get("score") == "sigmoid", {"score": "sigmoid"}),
        "softmax": (lambda i: "score" not in i, {}),
    },
    "renormalize": {
        "True": (lambda i: i.get("renormalize") is True, {"renormalize": True}),
        "False": (lambda i: "renormalize" not in i, {}),
    },
    "average": {"True": (lambda i: i.get("average") is True, {"average": True})},
    "ring": {"a chunk a rank": (lambda i: i.get("ring") == i["x"].shape[-1], {"ring": 4})},
    "block": {
        "a row": (lambda i: i["block"] == i["x"].shape[-1], {"block": 4}),
        "less": (lambda i: i["block"] < i["x"].shape[-1], {"block": 2}),
    },
    "limit": {
        f"{limit}": (lambda i, limit=limit: i["limit"] == limit, {"limit": limit})
        for limit in (127.0, 448.0, 6.0)
    },
    "power": {
        power: (lambda i, power=power: i.get("power") == power, {"power": power})
        for power in ("floor", "up")
    },
    "zero_point": {"128": (lambda i: i.get("zero_point") == 128, {"zero_point": 128})},
    "low": {
        "none": (lambda i: "low" not in i, {}),
        "of 4 bits": (lambda i: i.get("low") == -8, {"low": -8}),
        "0": (lambda i: i.get("low") == 0, {"low": 0}),
    },
    "high": {"of a byte": (lambda i: i.get("high") == 255, {"high": 255})},
    "step": {
        "first": (lambda i: i["step"] == 1, {}),
        "late": (lambda i: i["step"] == 1000, {"step": 1000}),
    },
    "decoupled": {
        "False": (lambda i: i.get("decoupled") is False, {"decoupled": False}),
        "True": (lambda i: i.get("decoupled", True), {}),
    },
    "result": {
        name: (lambda i, name=name: i.get("result", "parameter") == name, {"result": name})
        for name in ("parameter", "first", "second")
    },
    "ids": {
        "the last row": (
            lambda i: bool((i["ids"] == len(i["weight"]) - 1).any()),
            {"ids": torch.tensor([1, 1])},
        ),
        "one twice": (lambda i: len(i["ids"].unique()) < len(i["ids"]), {}),
        "no row": (lambda i: bool((i["ids"] < 0).any()), {"ids": torch.tensor([-1, 0])}),
    },
    "groups": {
        "one": (lambda i: i.get("groups", 1) == 1, {"groups": 1}),
        "several": (lambda i: i.get("groups", 1) > 1, {}),
    },
    "stride": {"2": (lambda i: i.get("stride") == 2, {"stride": 2})},
    "dilation": {"2": (lambda i: i.get("dilation") == 2, {"dilation": 2})},
    "padding": {
        "causal": (lambda i: "padding" in i and i["padding"][1] == 0, {"padding": (1, 0)}),
        "both ends": (lambda i: "padding" in i and min(i["padding"]) > 0, {"padding": 1}),
    },
    "ignored": {
        "none": (lambda i: "ignored" not in i, {}),
        "a class": (lambda i: i.get("ignored") == 0, {"ignored": 0}),
    },
    "reduction": {
        "mean": (lambda i: "reduction" not in i, {}),
        "none": (lambda i: i.get("reduction") == "none", {"reduction": "none"}),
    },
    "approximate": {
        name: (lambda i, name=name: i.get("approximate") == name, {"approximate": name})
        for name in ("none", "tanh")
    },
    "activation": {
        name: (lambda i, name=name: i.get("activation") == name, {"activation": name})
        for name in ("silu", "gelu_tanh")
    },
}


def _without(base: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in base.items() if key != name}


def argument_classes(op: str) -> Iterator[tuple[str, str, Seen, dict[str, Any]]]:
    """Yields (argument, edge class, whether inputs show it, inputs that hold it)."""
    operation, base = OPERATIONS[op], _base(op)
    for name in operation.arguments + operation.optional:
        if name in TENSORS or name in TENSORS_OF.get(op, ()):
            if name in ("cos", "sin"):
                without = {k: v for k, v in base.items() if k != "positions"}
                table = torch.full((2, 2), 0.5).bfloat16()
                yield (
                    name,
                    "given",
                    lambda i, n=name: n in i,
                    {**without, "cos": table, "sin": table},
                )
                continue
            plain = base[name] if name in base else torch.ones(base["b"].shape[-1]).bfloat16()
            if name in operation.optional:
                yield name, "none", lambda i, n=name: n not in i, _without(base, name)
            for label, element in ELEMENTS.items():
                sample = plain.clone()
                sample.view(-1)[0] = element
                yield name, label, _has(name, element), {**base, name: sample}
            single = {k: v[..., :1] if k in TENSORS else v for k, v in base.items()}
            if op == "matmul":
                single["b"] = base["b"][:1]
            if op in ("quantize", "dequantize"):
                single = {k: v[..., :1] for k, v in base.items()}
            if op == "attention" and name in ("bias", "sinks", "slopes"):
                single = {**base, "bias": base["bias"][:1, :1]}
            if op == "cross_entropy":
                single["targets"] = base["targets"] * 0
            yield name, "one element", lambda i, n=name: n in i and i[n].shape[-1] == 1, single
            if name != MAIN.get(op, "x"):
                continue
            for label, (has, values) in ROWS.items():
                sample = plain.clone()
                sample.view(-1, 4)[0] = torch.tensor(values)
                yield name, label, _rows(name, has), {**base, name: sample}
        elif name in SCALARS and (op, name) != ("block_scale", "limit"):
            if name == "cap" and op == "attention":
                yield name, "none", lambda i: "cap" not in i, base
            for value in ADAM_EPS if (op, name) == ("adam_step", "eps") else SCALARS[name]:
                yield (
                    name,
                    f"about {value}",
                    _number_classes(op, name, value),
                    {**base, name: value},
                )
        else:
            for label, (seen, change) in CHOICES[name].items():
                yield name, label, seen, {**base, **change}
