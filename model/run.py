"""One forward pass: where every operation is dispatched and every hook fires.

Tensor names: T ragged rows, B batch, P padded positions, K key positions, C key columns, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import torch

from .batch import RaggedBatch
from .cache.kv_cache import KVCache
from .hooks.captures import Captures, select_columns
from .hooks.gradient_hook import NO_GRADIENTS, BackwardHook, hook_gradient
from .hooks.overrides import Override
from .hooks.registry import (
    HookFunction,
    HookPoint,
    bits,
    call_hook,
    has_key_axis,
    in_graph,
    in_order,
    layer_of,
    moved,
)
from .ops.interface import Ops
from .parallel import Group, agreement

P = ParamSpec("P")
R = TypeVar("R")

_BOUNDARY = ("hook_resid_pre", "hook_resid_post")


class Watch:
    """Everything installed for a pass: hooks, captures, overrides. Empty on the hot path."""

    def __init__(
        self,
        hooks: Mapping[str, Sequence[HookFunction]],
        points: Mapping[str, HookPoint],
        overrides: Mapping[str, Override],
        captures: Captures,
        taps: frozenset[str] = frozenset(),
        backward: Mapping[str, Sequence[HookFunction]] = MappingProxyType({}),
        *,
        taps_ranges: bool = False,
    ) -> None:
        """`taps`: names inside a block, less their prefix, that the backend captures without
        opening the block; with `taps_ranges` in several blocks at a time, and between them.
        `backward`: functions of gradients, empty where no graph is wanted."""
        self.hooks = hooks
        self.backward = backward
        self.points = points
        self.overrides = overrides
        self.captures = captures
        self.names = captures.names | hooks.keys() | backward.keys()
        self.boundaries: set[int] = set()  # between blocks i - 1 and i
        self.opened: set[int] = set()  # blocks whose inside is hooked or overridden
        self.edited: set[int] = set()  # those of them with a function that may edit
        self.tapped: dict[int, set[str]] = {}  # what is only captured inside the others
        live = hooks.keys() | backward.keys()
        for name in self.names | overrides.keys():
            layer = layer_of(name)
            if layer is None:
                continue
            end = name.split(".", 2)[2]
            if name.endswith(_BOUNDARY) and name in self.names:
                if name in live or not taps_ranges:
                    self.boundaries.add(layer + name.endswith("post"))
            elif end in taps and name not in live and not self._only_some_rows(name):
                self.tapped.setdefault(layer, set()).add(end)
            else:
                self.opened.add(layer)
                if name in hooks or name in overrides:
                    self.edited.add(layer)
        for layer in self.opened:
            self.tapped.pop(layer, None)
        self._alone: Collection[int] = () if taps_ranges else self.tapped

    def _only_some_rows(self, name: str) -> bool:
        """Scores and patterns are computed for the captured rows alone."""
        return self.captures.pos_slice is not None and has_key_axis(name)

    def closed_until(self, layer: int, stop: int) -> int:
        """The end of the longest range of blocks from `layer` on that can run as one: unwatched,
        or only tapped, where that is a single one unless ranges are tapped; at most `stop`."""
        if not self.boundaries and not self.opened and not self._alone:
            return stop
        if layer in self._alone:
            return layer + 1
        end = layer
        while (
            end < stop
            and end not in self.opened
            and end not in self._alone
            and (end == layer or end not in self.boundaries)
        ):
            end += 1
        return end


@dataclass
class Run:
    """The context of one forward pass, handed down to every block."""

    ops: Ops
    batch: RaggedBatch
    cache: KVCache
    watch: Watch
    group: Group | None = None
    detached: set[str] = field(default_factory=set)
    """Hooks whose functions returned another tensor, part of no graph: gradients stop there."""

    def op(self, address: str, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The one dispatch point: calls fn, or what is installed at this address instead of it."""
        override = self.watch.overrides.get(address)
        if override is None:
            return fn(*args, **kwargs)
        with agreement(self.group, f"the override of {address}", "its result") as statement:
            result: R = override(fn, *args, **kwargs)
            statement.say("its result", result)
        self._check_differentiable(f"the override of {address}", result)
        return result

    def wants(self, *names: str) -> bool:
        """Whether any of these names is hooked or captured."""
        watched = self.watch.names
        return bool(watched) and any(name in watched for name in names)

    def is_hooked(self, *names: str) -> bool:
        """Whether a user's function stands on any of these names."""
        return any(name in self.watch.hooks for name in names)

    def has_backward(self, *names: str) -> bool:
        """Whether the gradient of any of these names is asked for."""
        return any(name in self.watch.backward for name in names)

    def is_overridden(self, address: str) -> bool:
        """Whether something is installed in place of this operation."""
        return address in self.watch.overrides

    def require_original(self, hook: str, *addresses: str) -> None:
        """Raises ValueError where an override would be passed by, head by head."""
        for address in filter(self.is_overridden, addresses):
            raise ValueError(
                f"{hook} is edited or in a graph, and goes on head by head, which the override of "
                f"{address} does not reach; take one of them away"
            )

    def hook(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Fires a hook on ragged rows [T, ...]; returns x itself unless a function edited it."""
        if name not in self.watch.names:
            return x
        if name in self.watch.hooks:
            x = self._call(name, x)
        if name in self.watch.backward:
            x = hook_gradient(x, self._backward_hook(name))
        if name in self.watch.captures.names:
            self.capture(name, x)
        return x

    def hook_edited(self, name: str, x: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Fires a hook; also returns whether to go on from an edited result, or one in a graph."""
        y = self.hook(name, x)
        return y, y is not x

    def hook_keys(
        self, name: str, x_THK: torch.Tensor, fill: float, window: int | None
    ) -> tuple[torch.Tensor, bool]:
        """Fires a hook on scores or patterns, shown as [B, H, P, C]; as `hook_edited`.

        Raises ValueError if a function gives a masked key another value than `fill`: no path
        computes with masked keys.
        """
        edited = x_THK
        if name in self.watch.hooks:
            shown = self._show_keys(x_THK, fill)
            result = self._run_functions(name, shown.clone(memory_format=torch.contiguous_format))
            if moved(result, shown):
                self._check_masked(name, result, shown, window)
                edited = self.ops.rearrange(
                    result,
                    partial(self.batch.strip_keys, fill=fill),
                    partial(self.batch.pad_keys, fill=0.0),
                )
        if name in self.watch.backward:
            masked = ~self.batch.visible_THK(window)
            edited = hook_gradient(edited, self._backward_hook(name, masked))
        if name in self.watch.captures.names:
            self.capture_keys(name, edited, fill)
        return edited, edited is not x_THK

    def capture_keys(
        self, name: str, x_THK: torch.Tensor, fill: float, *, sliced: bool = False
    ) -> None:
        """Keeps scores or patterns; `sliced` says that x holds `captured_rows` only."""
        columns = self._columns()
        if columns is not None and not sliced:
            kept = self.batch.pad_keys(x_THK, fill)[:, :, columns]
        else:
            kept = self.batch.pad_keys(x_THK, fill, columns)
        self.watch.captures.found[name] = kept.detach()

    def captured_rows(self) -> torch.Tensor | None:
        """Ragged rows that captures keep, int64; None where they keep all."""
        columns = self._columns()
        if columns is None:
            return None
        return torch.tensor(
            self.batch.rows_in(columns), dtype=torch.int64, device=self.batch.device
        )

    def graft(self, value: torch.Tensor, path: torch.Tensor, edited: torch.Tensor) -> torch.Tensor:
        """`path` where edited (all axes but the last) and `value` elsewhere; gradients flow through
        `path` alone.

        For hooks whose documented path sums in another order than the fused one.
        """
        merged = torch.where(edited[..., None], path.detach(), value.detach())
        if in_graph(path):
            return _Graft.apply(merged, path)  # type: ignore[no-any-return, no-untyped-call]
        return merged

    def _columns(self) -> list[int] | None:
        return select_columns(self.watch.captures.pos_slice, self.batch.n_columns)

    def _call(self, name: str, x: torch.Tensor) -> torch.Tensor:
        shown = self.batch.pad(x)
        result = self._run_functions(name, shown.clone(memory_format=torch.contiguous_format))
        # Padding is ignored on the way back; a copy, since the function may reuse its tensor.
        rows = self.ops.rearrange(result, self.batch.strip, self.batch.pad)
        return rows.clone() if moved(rows, x) else x

    def _run_functions(self, name: str, shown: torch.Tensor) -> torch.Tensor:
        given = shown
        point = self.watch.points[name].within(self.batch)
        with agreement(self.group, f"the hook on {name}", "its result") as statement:
            for fn in in_order(self.watch.hooks[name]):
                shown = call_hook(fn, shown, point)
            statement.say("its result", shown)
        if shown is not given and not shown.requires_grad:
            self.detached.add(name)
        self._check_differentiable(f"the hook on {name}", shown)
        return shown

    def _check_differentiable(self, source: str, result: Any) -> None:
        """Raises ValueError for a result whose graph the operations after it would cut."""
        if in_graph(result) and not self.ops.differentiable:
            raise ValueError(
                f"{source} returned a tensor that requires grad; {NO_GRADIENTS}; or "
                "detach() it, or run under torch.no_grad()"
            )

    def _show_keys(self, x_THK: torch.Tensor, fill: float) -> torch.Tensor:
        return self.ops.rearrange(
            x_THK,
            partial(self.batch.pad_keys, fill=fill),
            partial(self.batch.strip_keys, fill=0.0),
        )

    def _backward_hook(self, name: str, masked: torch.Tensor | None = None) -> BackwardHook:
        point = self.watch.points[name].within(self.batch)
        return BackwardHook(point, self.watch.backward[name], self.batch, masked)

    def capture(self, name: str, x: torch.Tensor) -> None:
        """Keeps ragged rows [T, ...], or their captured positions."""
        shown = self.batch.pad(x.detach())
        columns = self._columns()
        self.watch.captures.found[name] = shown if columns is None else shown[:, columns]

    def _check_masked(
        self, name: str, result: torch.Tensor, shown: torch.Tensor, window: int | None
    ) -> None:
        visible = self.batch.pad_keys(self.batch.visible_THK(window), False)
        real = self.batch.pad(self.batch.positions_T.new_ones(self.batch.n_rows))[:, None, :, None]
        if bool(((bits(result) != bits(shown)) & ~visible & (real == 1)).any()):
            raise ValueError(
                f"the hook on {name} changed masked keys (later ones, beyond the window, or "
                "padding), which no attention path reads; leave them as they are"
            )


class _Graft(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, grads[0]
