"""Finds the parts of a transformers model's blocks that are fused, so that only the whole is seen.

Tensor names: B batch, P positions, n G h.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .transformers_calls import Call, attention_call

_ROTATED, _PROJECTED = ("rope_q", "rope_k"), ("q", "k", "v")
_NORMED = ("q_norm", "k_norm")
_INSIDE = {
    "gated_mlp": ("gate", "up", "act"),
    "fused_attention": (),
    "rotated_attention": _ROTATED,
    "attention_block": (*_PROJECTED, *_NORMED, *_ROTATED, "attention"),
}
_RESULT = {
    "gated_mlp": "down",
    "fused_attention": "attention",
    "rotated_attention": "attention",
    "attention_block": "o",
}
_MLP = ("gate_proj", "up_proj", "down_proj")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Unit:
    """Operations that somebody fused into one, which is judged as a whole.

    Attributes:
        of: Whose they are, "blocks.0.attn".
        op: The contract's operation.
        by: Who computes it: a function, a class, what the config calls it.
    """

    of: str
    op: str
    by: str

    @property
    def inside(self) -> tuple[str, ...]:
        """The addresses that are not to be seen."""
        return tuple(f"{self.of}.{name}" for name in _INSIDE[self.op])

    @property
    def address(self) -> str:
        """The one that its result has."""
        return f"{self.of}.{_RESULT[self.op]}"

    def __str__(self) -> str:
        """Such as "blocks.3.attn, one unit: sdpa"."""
        return f"{self.of}, one unit: {self.by}"


@torch.no_grad()
def units_of(model: Any) -> Mapping[str, Unit]:
    """Returns the units of a model by their addresses, as a pass over two tokens shows them.

    An MLP is one where it does not call each of its linears once. Attention is one call where that
    takes queries, keys and values, and where it is not transformers' eager code; RoPE belongs to it
    where no such call can be seen, and the projections where they do not run once each.
    """
    seen = Watch()
    with seen.of(model):
        model(input_ids=torch.arange(2)[None], use_cache=False)
    units = []
    for i, layer in enumerate(model.model.layers):
        a = f"blocks.{i}.attn"
        if not seen.ran_once(f"blocks.{i}.mlp", _MLP):
            units.append(Unit(f"blocks.{i}.mlp", "gated_mlp", type(layer.mlp).__name__))
        norms = tuple(name for name in _NORMED if hasattr(layer.self_attn, name))
        own = type(layer.self_attn).__name__
        call = seen.calls.get(a)
        if not seen.ran_once(a, _ATTENTION + norms):
            units.append(Unit(a, "attention_block", own))
        elif call is None:
            units.append(Unit(a, "rotated_attention", own))
        elif call.is_fused or model.config._attn_implementation != "eager":
            units.append(Unit(a, "fused_attention", _computed_by(model, call)))
    return {unit.address: unit for unit in units}


def _computed_by(model: Any, call: Call) -> str:
    chosen: str = model.config._attn_implementation
    return call.name if chosen == "eager" else chosen


@dataclass
class Watch:
    """One pass of a model nobody overrides anything in.

    Attributes:
        calls: What each attention module handed its queries and keys to, by "blocks.0.attn".
        arguments: What each of them was called with, by name.
    """

    calls: dict[str, Call] = field(default_factory=dict)
    arguments: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _ran: Counter[tuple[str, str]] = field(default_factory=Counter)
    _inside: str | None = None
    _values_BPn: torch.Tensor | None = None

    def ran_once(self, of: str, names: tuple[str, ...]) -> bool:
        """Whether each of these modules of an MLP or attention ran once."""
        return all(self._ran[of, name] == 1 for name in names)

    @contextmanager
    def of(self, model: Any) -> Iterator[None]:
        """Watches the model in this thread."""
        handles = []
        for i, layer in enumerate(model.model.layers):
            a, attn = f"blocks.{i}.attn", layer.self_attn
            handles.append(
                attn.register_forward_pre_hook(partial(self._enter, a), with_kwargs=True)
            )
            handles.append(attn.register_forward_hook(self._leave))
            for of, owner, names in (
                (a, attn, _ATTENTION + _NORMED),
                (f"blocks.{i}.mlp", layer.mlp, _MLP),
            ):
                for name in filter(partial(hasattr, owner), names):
                    hook = partial(self._count, of, name)
                    handles.append(getattr(owner, name).register_forward_hook(hook))
        try:
            with _Functions(self._look):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, a: str, _: Any, __: Any, kwargs: dict[str, Any]) -> None:
        self._inside, self.arguments[a] = a, kwargs

    def _leave(self, *_: Any) -> None:
        self._inside = self._values_BPn = None

    def _count(self, of: str, name: str, _: Any, __: Any, output: Any) -> None:
        self._ran[of, name] += 1
        if name == "v_proj":
            self._values_BPn = output

    def _look(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._inside is None or self._inside in self.calls:
            return
        call = attention_call(func, args, kwargs, self._values_BPn)
        if call is not None:
            self.calls[self._inside] = call


class _Functions(TorchFunctionMode):
    """Shows a function every torch call before it happens."""

    def __init__(self, look: Callable[[Any, tuple[Any, ...], Mapping[str, Any]], None]) -> None:
        super().__init__()
        self._look = look

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._look(func, args, kwargs or {})
        return func(*args, **kwargs or {})
