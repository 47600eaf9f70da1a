"""A contract, its inputs and an output as a Python script of few lines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from ..precision.contract import PrecisionContract

_WIDTH = 96
_LONG = 12
"""Tensors with more elements than this are given by those that are not 0, where these are few."""


def script(
    title: str,
    contract: PrecisionContract,
    inputs: Mapping[str, Any],
    actual: torch.Tensor,
    needed: Mapping[str, tuple[str, ...]],
    call: str | None,
) -> str:
    """Exits 1 where the output breaks the contract.

    Args:
        needed: Names that `call` uses, by module.
        call: Computes the output from `inputs` and `contract`; None quotes `actual` instead.
    """
    plain = title.replace("\\", "/").replace('"', "'").replace("\n", " ")
    lines = [
        *(_wrapped(f'"""{plain}"""', " ", "")),
        "",
        "import torch",
        *_imports(needed),
        "",
        *_wrapped(f"contract = {_contract(contract)}"),
        "inputs = {",
        *(
            line
            for name, value in inputs.items()
            for line in _wrapped(f'    "{name}": {literal(value)},')
        ),
        "}",
        *_wrapped(f"actual = {call or literal(actual)}"),
    ]
    if call is not None and actual.numel() == 1:
        lines[-1] += f"  # {actual.item()!r} in this run"
    lines += [
        "verdict = check(actual, inputs, contract)",
        "print(verdict.reason)",
        "raise SystemExit(0 if verdict.ok else 1)",
        "",
    ]
    return "\n".join(lines)


def _imports(needed: Mapping[str, tuple[str, ...]]) -> list[str]:
    names = {**needed}
    names["bitlens.precision"] = ("PrecisionContract", "check", *names.get("bitlens.precision", ()))
    return [f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)]


def literal(value: Any) -> str:
    """Source text; a Python float's repr is exact for fp64 and everything narrower."""
    if not isinstance(value, torch.Tensor):
        return repr(value)
    dtype = "" if value.dtype in (torch.int64, torch.float32) else f", dtype={value.dtype}"
    at = value.nonzero()
    if value.numel() <= _LONG or len(at) * 4 > value.numel():
        return f"torch.tensor({_numbers(value)}{dtype})"
    places, held = at.T.tolist(), _numbers(value[tuple(at.T)])
    shape = tuple(value.shape)
    checked = f"{dtype}, check_invariants=True"
    return f"torch.sparse_coo_tensor({places}, {held}, {shape}{checked}).to_dense()"


def _numbers(value: torch.Tensor) -> str:
    if value.is_floating_point() and not all(map(math.isfinite, value.flatten().tolist())):
        text = repr(value.tolist())
        return text.replace("inf", 'float("inf")').replace("nan", 'float("nan")')
    return repr(value.tolist())


def _contract(contract: PrecisionContract) -> str:
    """The constructor, with the fields that are not the default."""
    given = [f'"{contract.op}"']
    for field in dataclasses.fields(contract)[1:]:
        value = getattr(contract, field.name)
        if value != field.default:
            shown = repr(value).replace("'", '"')
            given.append(f"{field.name}={shown}")
    return f"PrecisionContract({', '.join(given)})"


def _wrapped(line: str, separator: str = ", ", indent: str = "        ") -> list[str]:
    """Broken after separators where it is long."""
    out = []
    while len(line) > _WIDTH:
        at = line.rfind(separator, 0, _WIDTH)
        if at <= len(indent):
            break
        out.append(line[: at + len(separator)].rstrip())
        line = indent + line[at + len(separator) :]
    return [*out, line]
