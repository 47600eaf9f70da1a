"""One JAX program compiled with the roundings that it states, without, or with some put back.

`xla_allow_excess_precision`, on by default, lets XLA skip a rounding to bf16 where an operation and
its successor are fused. `lax.reduce_precision` is a rounding that it never skips.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from .jax_operations import Array, At, require_jax

Program = Callable[..., Any]
"""A function of arrays whose last argument is an `At`."""


def compiled(program: Program, *examples: Any, excess: bool, at: At) -> Callable[..., Any]:
    """Returns the program compiled for arrays such as the examples.

    Args:
        excess: Whether XLA may keep excess precision.
        at: What happens at each address.
    """
    jax = require_jax()
    lowered = jax.jit(lambda *arrays: program(*arrays, at)).lower(*examples)
    run: Callable[..., Any] = lowered.compile(
        compiler_options={"xla_allow_excess_precision": excess}
    )
    return run


def rounding_at(addresses: Collection[str]) -> At:
    """Returns what rounds to bf16 at some addresses, whatever the compiler does elsewhere."""
    jax = require_jax()

    def at(address: str, value: Array) -> Array:
        if address not in addresses:
            return value
        wide = jax.lax.reduce_precision(value.astype("float32"), 8, 7)
        return wide.astype("bfloat16")

    return at


def addresses_of(program: Program, *examples: Any) -> list[str]:
    """Returns the addresses of a program's roundings, in order."""
    found: list[str] = []

    def at(address: str, value: Array) -> Array:
        found.append(address)
        return value

    require_jax().eval_shape(lambda *arrays: program(*arrays, at), *examples)
    return found


def observed(program: Program) -> Program:
    """Returns the program with every value that is rounded beside its result, by address."""

    def run(*arrays: Any) -> tuple[Any, dict[str, Array]]:
        values: dict[str, Array] = {}
        *inputs, at = arrays

        def keep(address: str, value: Array) -> Array:
            values[address] = at(address, value)
            return values[address]

        return program(*inputs, keep), values

    return run
