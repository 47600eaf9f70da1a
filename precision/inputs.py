"""The inputs of an operation: checked, detached, with defaults filled in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

Tensor = torch.Tensor
Inputs = Mapping[str, Any]


class InputsError(ValueError):
    """Inputs that an operation cannot take."""


def prepare(
    op: str, arguments: tuple[str, ...], optional: tuple[str, ...], inputs: Inputs
) -> dict[str, Any]:
    """Every argument by name; optional ones that are missing get their default."""
    unknown = sorted(set(inputs) - set(arguments) - set(optional))
    missing = [name for name in arguments if inputs.get(name) is None]
    if unknown or missing:
        problem = f"unknown {', '.join(unknown)}" if unknown else f"missing {', '.join(missing)}"
        raise InputsError(
            f"{op}: {problem}; it takes {', '.join(arguments)}"
            + (f" and optionally {', '.join(optional)}" if optional else "")
        )
    prepared = {name: _plain(op, name, inputs.get(name)) for name in arguments + optional}
    _CHECKS[op](op, prepared)
    return prepared


def _plain(op: str, name: str, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().to("cpu")
    if value.is_floating_point():
        values = value.to(torch.float64)  # torch has no isfinite for fp8
        allowed = values.isfinite()
        if op in ("softmax", "logsumexp"):
            allowed |= values == -torch.inf
        if not bool(allowed.all()):
            where = [int(i) for i in (~allowed).nonzero()[0]]
            raise InputsError(
                f"{op}: {name}{where} is {values[tuple(where)].item()}; references need finite "
                "inputs"
            )
    return value


def _tensor(op: str, inputs: Inputs, name: str, dims: int = 1) -> Tensor:
    value = inputs[name]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputsError(f"{op}: {name} must be a floating-point tensor, got {got}")
    if value.ndim < dims or value.shape[-1] == 0:
        raise InputsError(
            f"{op}: {name} has shape {list(value.shape)}; it needs at least {dims} axes and a last "
            "axis that is not empty"
        )
    return value


def _number(op: str, inputs: dict[str, Any], name: str, default: float, *, above: float) -> None:
    value = default if inputs[name] is None else inputs[name]
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, int | float) or not math.isfinite(value) or value < above:
        raise InputsError(f"{op}: {name}={value!r} must be a finite number from {above} up")
    inputs[name] = float(value)


def _cap(op: str, inputs: dict[str, Any]) -> None:
    _number(op, inputs, "cap", 0.0, above=0.0)
    if inputs["cap"] == 0:
        raise InputsError(f"{op}: cap=0.0 must be positive")


def _mismatch(op: str, inputs: Inputs, *names: str) -> InputsError:
    shapes = ", ".join(f"{name} {list(inputs[name].shape)}" for name in names)
    return InputsError(f"{op}: shapes do not fit: {shapes}")


def _matmul(op: str, inputs: dict[str, Any]) -> None:
    a, b = _tensor(op, inputs, "a", 2), _tensor(op, inputs, "b", 2)
    if a.shape[-1] != b.shape[-2] or not _broadcast(a.shape[:-2], b.shape[:-2]):
        raise _mismatch(op, inputs, "a", "b")
    if inputs["bias"] is not None and _tensor(op, inputs, "bias").shape != b.shape[-1:]:
        raise _mismatch(op, inputs, "b", "bias")


def _norm(op: str, inputs: dict[str, Any]) -> None:
    x = _tensor(op, inputs, "x")
    for name in ("weight", "bias")[: 1 + (op == "layer_norm")]:
        if _tensor(op, inputs, name).shape != x.shape[-1:]:
            raise _mismatch(op, inputs, "x", name)
    _number(op, inputs, "eps", 1e-6 if op == "rms_norm" else 1e-5, above=0.0)


def _unary(op: str, inputs: dict[str, Any]) -> None:
    _tensor(op, inputs, "x")
    if op == "gelu":
        inputs["approximate"] = inputs["approximate"] or "none"
        if inputs["approximate"] not in ("none", "tanh"):
            raise InputsError(f"gelu: approximate={inputs['approximate']!r}: use 'none' or 'tanh'")


def _soft_cap(op: str, inputs: dict[str, Any]) -> None:
    _tensor(op, inputs, "x")
    _cap(op, inputs)


def _swiglu(op: str, inputs: dict[str, Any]) -> None:
    if _tensor(op, inputs, "gate").shape != _tensor(op, inputs, "up").shape:
        raise _mismatch(op, inputs, "gate", "up")
    _activation(op, inputs)


def _gated_mlp(op: str, inputs: dict[str, Any]) -> None:
    x = _tensor(op, inputs, "x", 2)
    gate, up, down = (_tensor(op, inputs, name, 2) for name in ("gate", "up", "down"))
    if gate.shape != up.shape or gate.shape[-2] != x.shape[-1] or down.shape[-2] != gate.shape[-1]:
        raise _mismatch(op, inputs, "x", "gate", "up", "down")
    for name in ("gate", "up", "down"):
        bias = f"{name}_bias"
        if inputs[bias] is not None and _tensor(op, inputs, bias).shape != inputs[name].shape[-1:]:
            raise _mismatch(op, inputs, name, bias)
    _activation(op, inputs)


def _activation(op: str, inputs: dict[str, Any]) -> None:
    inputs["activation"] = inputs["activation"] or "silu"
    if inputs["activation"] not in ("silu", "gelu_tanh"):
        raise InputsError(f"{op}: activation={inputs['activation']!r}: use 'silu' or 'gelu_tanh'")


def _attention(op: str, inputs: dict[str, Any]) -> None:
    q, k, v = (_tensor(op, inputs, name, 3) for name in "qkv")
    heads_fit = k.shape[-3] > 0 and q.shape[-3] % k.shape[-3] == 0
    if not (heads_fit and k.shape[:-1] == v.shape[:-1] and q.shape[-1] == k.shape[-1]):
        raise _mismatch(op, inputs, "q", "k", "v")
    if q.shape[:-3] != k.shape[:-3]:
        raise _mismatch(op, inputs, "q", "k")
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    _number(op, inputs, "scale", 1 / math.sqrt(q.shape[-1]), above=-math.inf)
    if inputs["cap"] is not None:
        _cap(op, inputs)
    causal, window, past = inputs["causal"], inputs["window"], inputs["past"]
    causal = False if causal is None else bool(causal)
    if window is not None and (not causal or window < 1):
        raise InputsError(f"attention: window={window} needs causal=True and at least 1 key")
    past = n_keys - n_queries if past is None else int(past)
    if causal and past < 0:
        raise InputsError(
            f"attention: causal with past={past}: {n_queries} queries stand at the end of "
            f"{n_keys} keys unless `past` says otherwise, and no query may stand before key 0"
        )
    visible = visible_keys(n_queries, n_keys, causal=causal, window=window, past=past)
    inputs.update(causal=causal, past=past, visible=visible)


def visible_keys(
    n_queries: int, n_keys: int, *, causal: bool, window: int | None, past: int
) -> Tensor:
    """Returns the keys each query sees, bool [queries, keys]; query i stands at past + i."""
    distance = torch.arange(n_queries)[:, None] + past - torch.arange(n_keys)
    visible = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        visible &= distance < window
    return visible


def _rope(op: str, inputs: dict[str, Any]) -> None:
    x = _tensor(op, inputs, "x")
    if x.shape[-1] % 2:
        raise InputsError(f"rope: x {list(x.shape)} has an odd last axis; it is rotated in pairs")
    tables = [inputs[name] is not None for name in ("cos", "sin")]
    if any(tables):
        others = ("positions", "theta", "inv_freq", "attention_factor")
        if not all(tables) or any(inputs[name] is not None for name in others):
            raise InputsError("rope: give either cos and sin, or positions and theta or inv_freq")
        for name in ("cos", "sin"):
            inputs[name] = _half_table(op, inputs, name, x)
        return
    positions = inputs["positions"]
    if not isinstance(positions, Tensor) or positions.is_floating_point():
        raise InputsError("rope: positions must be an integer tensor (or give cos and sin)")
    if not _broadcast(positions.shape, x.shape[:-1], into=True):
        raise _mismatch(op, inputs, "x", "positions")
    if positions.numel() and (int(positions.min()) < 0 or int(positions.max()) >= 2**31):
        raise InputsError("rope: positions must lie in [0, 2^31)")
    _number(op, inputs, "attention_factor", 1.0, above=0.0)
    if inputs["inv_freq"] is None:
        _number(op, inputs, "theta", 10000.0, above=1.0)
    else:
        inputs["inv_freq"] = _frequencies(op, inputs, x.shape[-1] // 2)


def _frequencies(op: str, inputs: Inputs, half: int) -> tuple[float, ...]:
    """Radians a position, one for each pair; parameters like theta, not data."""
    if inputs["theta"] is not None:
        raise InputsError("rope: give either theta or inv_freq")
    given = inputs["inv_freq"]
    found = tuple(given.tolist() if isinstance(given, Tensor) else given)
    numbers = all(isinstance(f, int | float) and math.isfinite(f) and f >= 0 for f in found)
    if len(found) != half or not numbers:
        raise InputsError(f"rope: inv_freq must hold {half} finite numbers from 0 up, got {given}")
    return tuple(map(float, found))


def _half_table(op: str, inputs: Inputs, name: str, x: Tensor) -> Tensor:
    """Tables may come twice side by side, as Hugging Face keeps them."""
    table, half = _tensor(op, inputs, name), x.shape[-1] // 2
    if table.shape[-1] == 2 * half and half:
        if not torch.equal(table[..., :half], table[..., half:]):
            raise InputsError(f"rope: the two halves of {name} differ, so they are no table")
        table = table[..., :half]
    if table.shape[-1] != half or not _broadcast(table.shape[:-1], x.shape[:-1], into=True):
        raise _mismatch(op, inputs, "x", name)
    return table


def _broadcast(a: torch.Size, b: torch.Size, *, into: bool = False) -> bool:
    try:
        shape = torch.broadcast_shapes(a, b)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return not into or shape == b


_CHECKS: dict[str, Callable[[str, dict[str, Any]], None]] = {
    "matmul": _matmul,
    "rms_norm": _norm,
    "layer_norm": _norm,
    "softmax": _unary,
    "logsumexp": _unary,
    "attention": _attention,
    "soft_cap": _soft_cap,
    "rope": _rope,
    "silu": _unary,
    "swiglu": _swiglu,
    "gated_mlp": _gated_mlp,
    "gelu": _unary,
}
