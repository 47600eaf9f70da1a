"""The making of an operator of `torch.ops.bitlens`, and the checks that stand before the core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

_LIBRARY = torch.library.Library("bitlens", "DEF")  # type: ignore[no-untyped-call]

OPERATORS: list[str] = []
"""Names under torch.ops.bitlens."""

Implementation = Callable[..., Any]


def operator(
    schema: str, fake: Implementation, *, on_gpu: bool = False
) -> Callable[[Implementation], Implementation]:
    """Returns a decorator that makes its function the implementation of a new operator, on the CPU
    and, if it says so, on a GPU."""
    name = schema.partition("(")[0]

    def register(impl: Implementation) -> Implementation:
        OPERATORS.append(name)
        _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
        for key in ("CPU", "CUDA") if on_gpu else ("CPU",):
            _LIBRARY.impl(name, impl, key)  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"bitlens::{name}", fake, lib=_LIBRARY)
        return impl

    return register


def differentiable(name: str, backward: Implementation, keep: Implementation) -> None:
    """Gives an operator gradients; `keep` is called with the context, its inputs and output."""
    torch.library.register_autograd(f"bitlens::{name}", backward, setup_context=keep, lib=_LIBRARY)


def require(condition: bool, op: str, message: str) -> None:
    """Raises ValueError naming the operator unless the condition holds."""
    if not condition:
        raise ValueError(f"bitlens::{op}: {message}")


_CPU = torch.device("cpu")


def check_tensor(
    op: str,
    name: str,
    x: torch.Tensor,
    dtype: torch.dtype,
    shape: Sequence[int],
    device: torch.device = _CPU,
) -> None:
    """Raises ValueError for a tensor that kernels there cannot read; -1 leaves an axis open."""
    fits = x.ndim == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, x.shape, strict=True)
    )
    require(
        fits and x.dtype == dtype and x.is_contiguous() and x.device == device,
        op,
        f"{name} is {x.dtype} {list(x.shape)} on {x.device}, "
        f"expected contiguous {dtype} {list(shape)} on {device}",
    )
