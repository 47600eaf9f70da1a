"""The torch call that an attention module hands its queries and keys to, recognised as it happens.

A product of the two, or one call that takes the values, too: torch's sdpa, or whatever kernel torch
knows as an operator. Tensor names: B batch, P positions, K keys, H heads, G key/value heads,
h d_head, n G h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

SDPA = "scaled_dot_product_attention"
_PRODUCTS = ("matmul", "__matmul__")
_NAMES = (("query", "key", "value"), ("q", "k", "v"))

Place = int | str
Axes = tuple[int, int] | None


@dataclass(frozen=True)
class Call:
    """A call with queries and keys among its arguments.

    Attributes:
        name: The function's.
        is_fused: Whether it takes the values as well: all of attention happens in it.
        queries: [B, H, P, h], or as the call has them where it folds heads into positions.
        keys: [B, G or H, K, h].
    """

    name: str
    is_fused: bool
    queries: torch.Tensor
    keys: torch.Tensor
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    places: tuple[Place, Place]
    axes: tuple[Axes, Axes]

    def with_operands(
        self, queries: torch.Tensor, keys: torch.Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Its arguments with others in the place of queries and keys."""
        args, kwargs = list(self.args), dict(self.kwargs)
        for place, axes, x in zip(self.places, self.axes, (queries, keys), strict=True):
            value = _exchanged(x, axes)
            if isinstance(place, int):
                args[place] = value
            else:
                kwargs[place] = value
        return tuple(args), kwargs


def attention_call(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], values_BPn: Any
) -> Call | None:
    """Returns the call where it is one with queries and keys; `values_BPn` are the values as they
    were projected, None where that could not be seen."""
    name = getattr(func, "__name__", "").removesuffix(".default")
    if name in _PRODUCTS:
        product = len(args) > 1 and _all_heads(args[:2]) and args[0].shape[-1] == args[1].shape[-2]
        return _call(name, False, args, kwargs, (0, 1), (None, (-2, -1))) if product else None
    places = _places(args, kwargs)
    if places is None:
        return None
    q, k, v = (args[p] if isinstance(p, int) else kwargs[p] for p in places)
    if not _all_heads((q, k, v)) or q.shape[-1] != k.shape[-1] or k.shape[:3] != v.shape[:3]:
        return None
    found = [axes for axes in (None, (1, 2)) if _are_values(_exchanged(v, axes), values_BPn)]
    if name != SDPA and not found:
        return None
    axes = None if name == SDPA else found[0]
    return _call(name, True, args, kwargs, places[:2], (axes, axes))


def _call(
    name: str,
    is_fused: bool,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    places: tuple[Place, Place],
    axes: tuple[Axes, Axes],
) -> Call:
    given = (args[p] if isinstance(p, int) else kwargs[p] for p in places)
    q, k = (_exchanged(x, each) for x, each in zip(given, axes, strict=True))
    return Call(name, is_fused, q, k, args, kwargs, places, axes)


def _places(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Place, Place, Place] | None:
    """Returns the places of a call's first three operands, if it has them."""
    for names in _NAMES:
        found = (*range(len(args)), *names[len(args) :])[:3]
        if all(isinstance(place, int) or place in kwargs for place in found):
            return found[0], found[1], found[2]
    return None


def _all_heads(operands: tuple[Any, ...]) -> bool:
    return all(isinstance(x, torch.Tensor) and x.ndim == 4 for x in operands)


def _are_values(v_BHKh: torch.Tensor, values_BPn: Any) -> bool:
    """Whether these are the projected values, perhaps once for each query head."""
    if not isinstance(values_BPn, torch.Tensor):
        return False
    batch, heads, n_keys, size = v_BHKh.shape
    groups = values_BPn.shape[-1] // size
    if values_BPn.shape != (batch, n_keys, groups * size) or heads % max(groups, 1):
        return False
    own_BGKh = values_BPn.view(batch, n_keys, groups, size).transpose(1, 2)
    return torch.equal(v_BHKh, own_BGKh.repeat_interleave(heads // groups, 1))


def _exchanged(x: torch.Tensor, axes: Axes) -> torch.Tensor:
    return x if axes is None else x.transpose(*axes)
