"""A model as an object: what `nn.Module` and pickle promise, or why it cannot be had."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol, Self

import torch
from torch import nn

from ..build import packed_matrices
from ..parallel import Group
from ..rope.parameters import with_rope_scaling
from ..weights.checkpoint import Checkpoint
from .interface import Ops

_TORCH = 'load it with backend="torch"'


class Origin(Protocol):
    """The source of a model: opens it again, with the same weights or not at all."""

    def reopen(self, fingerprint: str) -> Any: ...

    def with_rope_scaling(self, rope_scaling: Mapping[str, Any]) -> Origin: ...


class ModelCopies(nn.Module):
    """A model's methods that convert, copy, pickle and list it.

    Native weights are packed once, from a file: they are no parameters that a conversion reaches.
    """

    ops: Ops
    group: Group | None
    origin: Origin | None = None
    trained: Any = None
    _checkpoint: Checkpoint | None
    _make_runner: Callable[..., Any]

    def fingerprint(self) -> str:
        raise NotImplementedError

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Converts weights, or raises ValueError where native ones would stay as they are."""
        if self.ops.differentiable:
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]
        policy = self.ops.policy
        here = self.ops.device
        found = fn(torch.empty(0, dtype=policy.compute, device=here))
        if found.device != here:
            there = found.device.type
            way_out = f'load it with device="{there}"' if there in ("cpu", "cuda") else _TORCH
            raise ValueError(
                f"to: native weights stay on {here}, {found.device} is asked for; {way_out}"
            )
        if found.dtype not in (policy.compute, policy.weight):
            raise ValueError(
                f'to: native weights keep the precision of dtype="{policy.name}", {found.dtype} is '
                f'asked for; load the model with another dtype, such as "bf16", or {_TORCH}'
            )
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Works like `nn.Module`'s. Raises ValueError on the native backend: it packs weights."""
        if not self.ops.differentiable:
            _refuse_state("state_dict")
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Works like `nn.Module`'s. Raises ValueError on the native backend: it packs weights."""
        if not self.ops.differentiable:
            _refuse_state("load_state_dict")
        return super().load_state_dict(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies hooks and state; packed weights, which nothing changes, are shared."""
        self._require_frozen("deepcopy")
        if self.group is not None:
            raise TypeError("deepcopy: this model is spread over ranks; load it on each again")
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update({name: copy.deepcopy(x, memo) for name, x in vars(self).items()})
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles where native weights came from and their hash; hooks stay behind.

        A model of the torch backend, whose weights may have been trained, pickles whole.
        """
        if self.ops.differentiable:
            return super().__reduce_ex__(protocol)
        self._require_frozen("pickle")
        if self.group is not None:
            raise TypeError("pickle: this model is spread over ranks; load it on each again")
        if self.origin is None:
            raise TypeError(
                "pickle: this model was made in memory, so there is no source to load it from "
                "again; save it with transformers' save_pretrained and load that"
            )
        return self.origin.reopen, (self.fingerprint(),)

    def with_rope_scaling(self, rope_scaling: Mapping[str, Any]) -> Self:
        """Returns this model with other rotary positions, over the same packed matrices.

        It is what `bitlens.load(..., rope_scaling=rope_scaling)` gives, bit for bit, without the
        memory of a second one. Hooks and overrides stay behind.

        Raises:
            ConfigError: a `rope_scaling` that cannot be, as `bitlens.load`.
            ValueError: a model whose matrices are not packed, are spread over ranks, are trained,
                or were read from memory that may have changed since.
        """
        is_shared = not self.ops.differentiable and self.group is None and self.trained is None
        if not is_shared or self._checkpoint is None:
            raise ValueError(
                "with_rope_scaling: only packed matrices of a model that was loaded from files, on "
                "one rank, and is not trained, are shared; load it again with rope_scaling"
            )
        config = with_rope_scaling(self._checkpoint.config, rope_scaling)
        self.ops.adopt(config)
        checkpoint = dataclasses.replace(self._checkpoint, config=config)
        make: Any = type(self)
        model: Self = make(checkpoint, self.ops, self._make_runner, packed_matrices(self.modules()))
        if self.origin is not None:
            model.origin = self.origin.with_rope_scaling(rope_scaling)
        return model

    def _require_frozen(self, what: str) -> None:
        if self.trained is not None:
            raise TypeError(
                f"{what}: weights under training stay here; load the model again, and put what a "
                "run has saved into it with bitlens.model.training.load_weights"
            )


def _refuse_state(name: str) -> NoReturn:
    raise ValueError(f"{name}: native weights are packed, not parameters; {_TORCH}")
