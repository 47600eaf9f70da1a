"""Kernels as they are called: by other names or by position, writing in place, with tuples."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .contract import PrecisionContract
from .emulation import emulate
from .inputs import InputsError
from .operations import operation_called

Names = Mapping[str, str] | Sequence[str]
"""The operation's arguments by the kernel's parameters, or in the order of its positions."""


class BindingError(ValueError):
    """A kernel and an operation that do not fit together as stated."""


@dataclass(frozen=True)
class ExampleCall:
    """A call of a kernel on known inputs, from which each of its arguments is recognised.

    A tensor is recognised by being one of `inputs`, a number by its value; whatever is neither is
    handed on as it stands.

    Attributes:
        inputs: By the operation's names; values of numbers must differ from each other.
        args, kwargs: What the kernel is called with.
    """

    inputs: Mapping[str, Any]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Given:
    """One of the operation's arguments."""

    name: str


def bind(
    fn: Callable[..., Any],
    contract: PrecisionContract,
    names: Names | ExampleCall | None = None,
    *,
    result: int | str | None = None,
    out: str | None = None,
) -> Callable[..., torch.Tensor]:
    """Returns `fn` as an implementation: called with the operation's arguments, by their names.

    Args:
        names: {"input": "x"} where parameters are called otherwise, ("x", "weight") where they are
            taken by position, or an `ExampleCall`. By default parameters have the operation's
            names.
        result: Which of several returned tensors is the output, or the argument in which it is left
            ("x" for a kernel that works in place); by default what is returned.
        out: The parameter of a tensor for the output, which is handed over full of NaN.

    Raises BindingError for names that the operation has not, and for a kernel that needs more than
    is bound; InputsError, when called, for results that are no tensor.
    """
    operation = operation_called(contract.op)
    known = (*operation.arguments, *operation.optional)
    args, kwargs = _places(fn, known, names, out)
    used = {place.name for place in (*args, *kwargs.values()) if isinstance(place, _Given)}
    if unknown := sorted(used - set(known)):
        raise BindingError(f"{contract.op} has no {', '.join(unknown)}; it has {', '.join(known)}")
    if missing := [name for name in operation.arguments if name not in used]:
        raise BindingError(f"{contract.op}: nothing takes {', '.join(missing)}; name it in `names`")
    if isinstance(result, str) and result not in used:
        raise BindingError(f"result={result!r}: the kernel is not given {contract.op}'s {result!r}")

    @functools.wraps(fn)
    def implementation(**inputs: Any) -> torch.Tensor:
        keywords = {k: p for k, p in kwargs.items() if _is_there(p, inputs)}
        called = {name: _value(place, inputs) for name, place in keywords.items()}
        if out is not None:
            called[out] = _empty(inputs, contract)
        returned = fn(*(_value(place, inputs) for place in args), **called)
        if out is not None:
            return called[out]  # type: ignore[no-any-return]
        return _picked(inputs[result] if isinstance(result, str) else returned, result, contract)

    needed = [p.name for p in args if isinstance(p, _Given)]
    defaults = _defaults(fn)
    needed += [p.name for k, p in kwargs.items() if isinstance(p, _Given) and k not in defaults]
    order = [name for name in known if name in used]
    implementation.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if name in needed else None,
            )
            for name in order
        ]
    )
    return implementation


def output_of(returned: Any, contract: PrecisionContract, result: int | None = None) -> Any:
    """Returns one of the tensors that a kernel returned; InputsError where it is not said which."""
    return _picked(returned, result, contract)


def renamed(inputs: Mapping[str, Any], names: Mapping[str, str] | None) -> Mapping[str, Any]:
    """Inputs by the operation's names, from those by the kernel's."""
    return {(names or {}).get(name, name): value for name, value in inputs.items()}


def _places(
    fn: Callable[..., Any],
    known: tuple[str, ...],
    names: Names | ExampleCall | None,
    out: str | None,
) -> tuple[list[Any], dict[str, Any]]:
    """What goes to each position and to each keyword."""
    if isinstance(names, ExampleCall):
        kwargs = {k: _recognised(v, names.inputs) for k, v in (names.kwargs or {}).items()}
        return [_recognised(value, names.inputs) for value in names.args], kwargs
    if names is not None and not isinstance(names, Mapping):
        return [_Given(name) for name in names], {}
    renaming = dict(names or {})
    parameters = _parameters(fn)
    if parameters is None:
        taken = dict.fromkeys(name for name in known if name not in renaming.values())
    else:
        taken = {name: None for name in parameters if name not in renaming and name != out}
        if strangers := [name for name in renaming if name not in parameters]:
            raise BindingError(f"names: the kernel has no parameter {', '.join(strangers)}")
        unbound = [
            name for name, p in parameters.items()
            if p.default is p.empty and name not in (*known, *renaming, out)
        ]  # fmt: skip
        if unbound:
            raise BindingError(f"the kernel needs {', '.join(unbound)}: name them in `names`")
    same = {name: _Given(name) for name in taken if name in known}
    return [], {**same, **{ours: _Given(theirs) for ours, theirs in renaming.items()}}


def _parameters(fn: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Those with names; None for a function that does not say, or takes any."""
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return dict(parameters)


def _defaults(fn: Callable[..., Any]) -> set[str]:
    parameters = _parameters(fn) or {}
    return {name for name, p in parameters.items() if p.default is not p.empty}


def _recognised(value: Any, inputs: Mapping[str, Any]) -> Any:
    if isinstance(value, torch.Tensor):
        found = [name for name, x in inputs.items() if x is value]
        if not found:
            raise BindingError("the example call has a tensor that is none of its inputs")
    else:
        found = [
            name for name, x in inputs.items()
            if not isinstance(x, torch.Tensor) and type(x) is type(value) and x == value
        ]  # fmt: skip
    if len(found) > 1:
        raise BindingError(f"the example call does not tell {' from '.join(found)}")
    return _Given(found[0]) if found else value


def _is_there(place: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether an argument was given: one that was not is left to the kernel's default."""
    return not isinstance(place, _Given) or inputs.get(place.name) is not None


def _value(place: Any, inputs: Mapping[str, Any]) -> Any:
    return inputs.get(place.name) if isinstance(place, _Given) else place


def _empty(inputs: Mapping[str, Any], contract: PrecisionContract) -> torch.Tensor:
    output = emulate(inputs, contract)
    return torch.full_like(output, torch.nan)


def _picked(returned: Any, result: int | str | None, contract: PrecisionContract) -> torch.Tensor:
    if isinstance(returned, tuple | list):
        if not isinstance(result, int):
            raise InputsError(
                f"{contract.op}: {len(returned)} results came back; say which is the output, as "
                "result=0"
            )
        returned = returned[result]
    if not isinstance(returned, torch.Tensor):
        raise InputsError(
            f"{contract.op}: {type(returned).__name__} came back where a tensor should; a kernel "
            'that writes into an argument needs result="x", or out= and its parameter\'s name'
        )
    return returned
